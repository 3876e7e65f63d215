"""The table of a quantized network: shapes, bits, work and bytes of each layer; and the line that says what it is."""

from __future__ import annotations

from nbdense._tables import Table
from nbdense.quant.model.network import QuantizedNetwork


def summary_table(network: QuantizedNetwork) -> Table:
    """Return a line a layer, and the totals.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    """
    sizes = network.layer_bytes()
    rows = [
        (
            f"{layer.name} ({layer.title})",
            f"(None, {', '.join(map(str, [positions, n] if positions > 1 else [n]))})",
            "" if layer.weight_bits is None else str(layer.weight_bits),
            f"{layer.multiply_adds:,}",
            f"{size:,}",
        )
        for layer, (positions, n), size in zip(network.layers, network.tensors[1:], sizes, strict=True)
    ]
    notes = [
        f"Bytes of weights, biases, scales and tables: {sum(sizes):,}",
        f"Bytes of a row's activations, at most: {network.peak_activation_bytes():,}",
        f"Multiply-adds of a row: {sum(layer.multiply_adds for layer in network.layers):,}",
    ]
    head = ("Layer (kind)", "Output shape", "Weight bits", "Multiply-adds", "Bytes")
    return Table(head, rows, f"Quantized model: {description(network)}", notes)


def description(network: QuantizedNetwork) -> str:
    """Return what a network is, in a few words: its scheme, the bits of its weights, its shapes.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    """
    bits = sorted({layer.weight_bits for layer in network.layers if layer.weight_bits is not None})
    weights = f", weights of {' and '.join(map(str, bits))} bits" if bits else ""
    integers = any(form is not None for form in network.formats)
    activations = f", {network.activation_dtype} activations" if integers else ""
    return f"{network.scheme}{weights}{activations}, {network.input_shape} -> {network.output_shape}"
