"""Looking inside a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbdense.models import Sequential


def summary(model: Sequential) -> str:
    """The table that ``Sequential.summary`` prints."""
    network = model.network
    shape = network.input_shape
    lines = [f'Model "{model.name}"', f"{'layer':<28}{'output':>16}{'parameters':>14}{'multiply-adds':>16}", "-" * 74]
    for layer in model.layers:
        count, work = layer.count_params(shape), layer.multiply_adds(shape)
        shape = layer.output_shape(shape)
        name = f"{layer.name} ({type(layer).__name__})"
        out = f"(None, {', '.join(map(str, shape))})"
        lines.append(f"{name:<28}{out:>16}{count:>14,}{work:>16,}")
    total = model.count_params()
    learning = sum(
        int(p.length and __import__("math").prod(p.shape))
        for p, segment in zip(network.parameters, network.segments, strict=True)
        if segment["trainable"]
    )
    size = total * model.dtype.itemsize / 1024
    lines += ["-" * 74, f"parameters: {total:,} ({size:.1f} KiB), trainable: {learning:,}"]
    return "\n".join(lines)
