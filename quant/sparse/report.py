"""The report of a sparse model: its dictionary, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbdense._tables import Table
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.sparse.forms import DENSE, SIZES, Form, blocks_in, kernel_of


def report_of(network: QuantizedNetwork, choice: Mapping[str, Form]) -> dict[str, Any]:
    """Return what is known of a model's layers, and of it, without measuring.

    Parameters
    ----------
    network : QuantizedNetwork
        The network, with its zeros.
    choice : mapping of str to Form
        Forms of its dense layers, by name.
    """
    layers = []
    for layer in network.layers:
        if layer.name not in choice:
            continue
        kernel, form = kernel_of(layer), choice[layer.name]
        there = int(np.count_nonzero(kernel))
        entry: dict[str, Any] = {
            "name": layer.name,
            "kind": layer.title,
            "few": form.few,
            "many": form.many,
            "weights": kernel.size,
            "kept": there,
            "sparsity": 1 - there / kernel.size,
            "dense_multiply_adds": layer.multiply_adds,
            "multiply_adds": {},
        }
        for size in SIZES:
            stored = kernel.size if form.of(size) == DENSE else blocks_in(layer, form.of(size)).values.size
            entry["multiply_adds"][size] = layer.positions * stored
        layers.append(entry)
    weights, kept = (sum(entry[key] for entry in layers) for key in ("weights", "kept"))
    model = {
        "weights": weights,
        "kept": kept,
        "sparsity": 1 - kept / weights,
        "dense_multiply_adds": sum(layer.multiply_adds for layer in network.layers),
        "multiply_adds": {size: sum(entry["multiply_adds"][size] for entry in layers) for size in SIZES},
        "dense_bytes": sum(network.layer_bytes()),
    }
    return {"layers": layers, "model": model}


def layers_table(report: Mapping[str, Any], notes: Sequence[str] = ()) -> Table:
    """Return a report's layers as a table.

    Parameters
    ----------
    report : mapping
        As `SparseModel.report` gives it.
    notes : sequence of str
        Lines below.
    """
    head = ("layer", "kind", "few rows", "many rows", "weights", "kept", "sparsity", "multiply-adds")
    rows = [
        (
            entry["name"],
            entry["kind"],
            entry["few"],
            entry["many"],
            f"{entry['weights']:,}",
            f"{entry['kept']:,}",
            f"{entry['sparsity']:.2%}",
            f"{entry['multiply_adds']['many']:,}",
        )
        for entry in report["layers"]
    ]
    return Table(head, rows, notes=notes, left=2)


def report_table(report: Mapping[str, Any]) -> Table:
    """Return a report as a table, with a few lines about the model below.

    Parameters
    ----------
    report : mapping
        As `SparseModel.report` gives it.
    """
    model = report["model"]
    notes = [
        f"{model['kept']:,} of {model['weights']:,} weights are not zero ({model['sparsity']:.2%} are)",
        f"{model['multiply_adds']['many']:,} multiply-adds a row of {model['dense_multiply_adds']:,}",
        f"{model['bytes']:,} bytes in a file (dense: {model['dense_bytes']:,}), {model['memory_bytes']:,} in memory",
    ]
    for timing in report.get("timings", []):
        beside = f", float: {timing['float_us']:.3g}" if "float_us" in timing else ""
        notes.append(
            f"{timing['us']:.3g} microseconds a row at {timing['rows']} rows a call (dense: {timing['dense_us']:.3g}"
            f"{beside}), measured here"
        )
    return layers_table(report, notes)
