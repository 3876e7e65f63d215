"""The table of a model: shapes, parameters, work and memory of each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nbdense import backends
from nbdense._tables import Table
from nbdense.backends.base import NOTHING
from nbdense.layers import Layer, Residual
from nbdense.layers.base import Shape
from nbdense.training.state import Model

SUMMARY_BATCH = 32  # fit's default, for which the summary gives the workspace


@dataclass(frozen=True)
class _Line:
    name: str
    kind: str
    depth: int
    shape: Shape
    parameters: int
    multiply_adds: int

    @property
    def label(self) -> str:
        return f"{'  ' * self.depth}{self.name} ({self.kind})"

    def cells(self, size: int) -> tuple[str, ...]:
        """Return what stands in `_COLUMNS`, of parameters of ``size`` bytes."""
        return (
            f"(None, {', '.join(map(str, self.shape))})",
            f"{self.parameters:,}",
            f"{self.multiply_adds:,}",
            readable_bytes(self.parameters * size),
            readable_bytes(math.prod(self.shape) * size),
        )


def _lines(layers: Sequence[Layer], shape: Shape, depth: int = 0) -> Iterator[_Line]:
    """Yield a line a layer, those of the layers inside it behind it."""
    for layer in layers:
        shape_in, shape = shape, layer.shape_after(shape)
        counts = layer.parameters_for(shape_in), layer.multiply_adds(shape_in)
        yield _Line(layer.name, type(layer).__name__, depth, shape, *counts)
        inner = getattr(layer, "layers", None)
        if inner:
            yield from _lines(inner, shape_in, depth + 1)
            if isinstance(layer, Residual) and shape != shape_in:
                size = shape_in[-1] * shape[-1]
                work = math.prod(shape_in) * shape[-1]
                yield _Line("projection", "Dense", depth + 1, shape, size, work)


def readable_bytes(count: float) -> str:
    """Write ``count`` bytes in the unit that suits it, as in "3.2 KiB".

    Examples
    --------
    >>> readable_bytes(100), readable_bytes(3300), readable_bytes(2**31)
    ('100 B', '3.2 KiB', '2.0 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    power = min(3, int(math.log2(count)) // 10)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


_COLUMNS = (("Output shape", 20), ("Parameters", 14), ("Multiply-adds", 16), ("Weights", 12), ("Outputs a row", 15))


def summary(model: Model, line_length: int | None = None) -> str:
    """Return the table that ``Sequential.summary`` prints.

    Parameters
    ----------
    model : Sequential
        One that is built or knows its input's shape.
    line_length : int, optional
        Columns; by default as many as the longest name wants.

    Returns
    -------
    str
        A line a layer, those inside a Residual indented below it (its own numbers include them): shape of the
        outputs, parameters, multiply-adds of one row of data, bytes of the parameters, bytes of one row's outputs.
        Then the totals. The training workspace is what batches of 32 rows need beside the model: outputs, deltas,
        transposed kernels, statistics; its rows are padded to whole vectors, which counts in narrow layers.

    Raises
    ------
    ValueError
        If the input's shape is not known yet, or ``line_length`` leaves no room for names.
    """
    network, size = model.network, model.dtype.itemsize
    lines = list(_lines(model.layers, network.input_shape))
    rest = sum(width for _, width in _COLUMNS)
    wanted = max(24, *(len(line.label) for line in lines)) if line_length is None else line_length - rest
    if wanted < 8:
        raise ValueError(f"summary: line_length must be at least {rest + 8}, got {line_length}")
    rule = "-" * (wanted + rest)
    head = f"{'Layer (type)':<{wanted}}" + "".join(f"{name:>{width}}" for name, width in _COLUMNS)
    text = [f'Model "{model.name}", {model.dtype}', rule, head, rule]
    for line in lines:
        label = line.label if len(line.label) <= wanted else f"{line.label[: wanted - 3]}..."
        cells = zip(line.cells(size), _COLUMNS, strict=True)
        text.append(f"{label:<{wanted}}" + "".join(f"{cell:>{width}}" for cell, (_, width) in cells))
    return "\n".join([*text, rule, *_totals(model)])


def summary_table(model: Model, shape: Shape | None, totals: bool) -> Table:
    """Return what ``Sequential.summary`` prints as a table; the model is not built for it.

    Parameters
    ----------
    model : Sequential
        The model.
    shape : tuple of int or None
        Shape of one row of its input, where it is known.
    totals : bool
        Whether the totals stand below: of a model that is built.
    """
    title = f'Model "{model.name}", {model.dtype}'
    if shape is None:
        layers = [(layer.name, type(layer).__name__) for layer in model.layers]
        return Table(("Layer", "Type"), layers, f"{title}, not built: the width of its input is not known", left=2)
    rows = []
    for line in _lines(model.layers, shape):
        indented = line.label.replace("  ", "\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}")  # HTML would drop leading blanks
        rows.append((indented, *line.cells(model.dtype.itemsize)))
    head = ("Layer (type)", *(name for name, _ in _COLUMNS))
    return Table(head, rows, title, _totals(model) if totals else ())


def description(model: Model, shape: Shape | None) -> str:
    """Return what a model is, in a line.

    Parameters
    ----------
    model : Sequential
        The model; it is not built for it.
    shape : tuple of int or None
        Shape of one row of its input, where it is known.
    """
    parts = [f"{len(model.layers)} layer{'' if len(model.layers) == 1 else 's'}"]
    if shape is None:
        parts.append("not built")
    else:
        lines = [line for line in _lines(model.layers, shape) if line.depth == 0]
        parts.append(f"{shape} -> {lines[-1].shape if lines else shape}")
        parts.append(f"{sum(line.parameters for line in lines):,} parameters")
    return f"<{type(model).__name__} {model.name!r}: {', '.join(parts)}, {model.dtype}>"


def unbuilt_summary(model: Model) -> str:
    """Return what ``Sequential.summary`` prints of a model whose input's width is not known: its layers.

    Parameters
    ----------
    model : Sequential
        The model.
    """
    layers = [f"{layer.name} ({type(layer).__name__})" for layer in model.layers]
    return "\n".join([f'Model "{model.name}", {model.dtype}, not built: the width of its input is not known', *layers])


def _totals(model: Model) -> list[str]:
    network, size = model.network, model.dtype.itemsize
    total = sum(math.prod(parameter.shape) for parameter in network.parameters)
    trainable = sum(
        math.prod(parameter.shape)
        for parameter, segment in zip(network.parameters, network.segments, strict=True)
        if segment["trainable"]
    )
    compiled = model.optimizer is not None and model.loss is not None
    objective = model.train_state.objective()[0] if compiled else NOTHING
    state = np.zeros((1, 0), model.dtype)
    workspace = backends.current().workspace(network, objective, SUMMARY_BATCH, state)  # untouched, so it is cheap
    counts = {"Total": total, "Trainable": trainable, "Non-trainable": total - trainable}
    if model.optimizer is not None:
        counts["Optimizer"] = total * (model.optimizer.state_rows - 1)
    return [
        *(f"{name} parameters: {count:,} ({readable_bytes(count * size)})" for name, count in counts.items()),
        f"Multiply-adds of a row: {network.multiply_adds:,}",
        f"Training workspace for a batch of {SUMMARY_BATCH}: {readable_bytes(workspace.nbytes)}",
    ]
