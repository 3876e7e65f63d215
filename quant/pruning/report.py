"""Reports on pruned models: counts layer by layer, as text, as a table or as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbdense._tables import Table
from nbdense.compression import compressed_bytes
from nbdense.files import tensor_bytes
from nbdense.inspection.plots import pyplot
from nbdense.network import Network, Row, held_network
from nbdense.quant.conversion.budget import score_of
from nbdense.quant.pruning.criteria import dense_rows
from nbdense.quant.pruning.rules import choose

FORMS = ("text", "dict", "table", "plot")
_HEAD = ("layer", "kernel", "weights", "kept", "sparsity", "rows empty", "columns empty", "multiply-adds", "kept")


def pruning_report(model: Any, before: Any = None, evaluate: Any = None, form: str = "text") -> Any:
    """Report each layer's sparsity, and what a pruned model has and costs.

    Parameters
    ----------
    model : Sequential or Network
        The pruned model.
    before : Sequential or Network, optional
        The model that it was made of, of layers that may be wider, to stand beside it.
    evaluate : (x, y), or callable, optional
        An evaluation set, or a function of a model that returns a score, as for `quantize`: what both models are
        measured by.
    form : str
        "text"; "dict", of JSON's types; "table", rows of cells of which the first is the head; or "plot", the
        patterns of the layers' kernels as a matplotlib figure.

    Returns
    -------
    str, dict, list of tuple, or matplotlib Figure
        "parameters" counts biases too. "bytes" are what the parameters take in memory, where zeros take as much as
        others; "file_bytes" what they take in a file, "compressed_bytes" in one of ``save(compressed=True)``.

    Raises
    ------
    ValueError
        For another form, or no model.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbdense as nb
    >>> model = nb.Sequential([nb.Input((4,)), nb.Dense(10), nb.Dense(2)])
    >>> pruning_report(nb.prune(model, 0.5), form="dict")["model"]["sparsity"]
    0.5
    """
    choose("pruning_report", "form", form, FORMS)
    network = _network(model)
    if form == "plot":
        return plot_patterns(network)
    layers = [_layer(row) for row in dense_rows(network)]
    if form == "table":
        return [_HEAD, *map(_cells, layers)]
    made: dict[str, Any] = {"layers": layers, "model": _totals(network)}
    if before is not None:
        made["before"] = _totals(_network(before))
    if evaluate is not None:
        score = score_of(evaluate, "pruning_report")
        made["model"]["score"] = score(model)
        if before is not None:
            made["before"]["score"] = score(before)
    return _text(made) if form == "text" else made


def _network(model: Any) -> Network:
    network = held_network(model)
    if not isinstance(network, Network):
        raise ValueError(f"pruning_report: expected a built model or a Network, got {type(model).__name__}")
    return network


def _layer(row: Row) -> dict[str, Any]:
    """Return the counts of one layer."""
    kept = row.kernel != 0
    count = int(kept.sum())
    return {
        "name": row.name,
        "kernel": list(kept.shape),
        "weights": kept.size,
        "kept": count,
        "sparsity": 1 - count / kept.size,
        "empty_rows": int((~kept.any(axis=1)).sum()),
        "empty_columns": int((~kept.any(axis=0)).sum()),
        "multiply_adds": row.positions * kept.size,
        "kept_multiply_adds": row.positions * count,
    }


def _totals(network: Network) -> dict[str, Any]:
    """Return the counts of a whole network."""
    layers, tensors = [_layer(row) for row in dense_rows(network)], network.tensors()
    arrays = list(tensors.values())
    parameters = sum(array.size for array in arrays)
    weights, kept = (sum(layer[name] for layer in layers) for name in ("weights", "kept"))
    return {
        "sparsity": 1 - kept / weights,
        "parameters": parameters,
        "kept_parameters": parameters - (weights - kept),
        "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
        "kept_multiply_adds": sum(layer["kept_multiply_adds"] for layer in layers),
        "bytes": sum(array.nbytes for array in arrays),
        "file_bytes": len(tensor_bytes("weights", {}, tensors)),
        "compressed_bytes": len(compressed_bytes("weights", {}, tensors)),
    }


def _cells(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a layer's row of the table."""
    return (
        layer["name"],
        " x ".join(map(str, layer["kernel"])),
        f"{layer['weights']:,}",
        f"{layer['kept']:,}",
        f"{layer['sparsity']:.2%}",
        f"{layer['empty_rows']}",
        f"{layer['empty_columns']}",
        f"{layer['multiply_adds']:,}",
        f"{layer['kept_multiply_adds']:,}",
    )


def _text(report: Mapping[str, Any]) -> str:
    """Write a report as a table, and a few lines about the model."""
    notes = []
    for title, totals in (("before", report.get("before")), ("pruned", report["model"])):
        if totals is not None:
            score = f", score {totals['score']:.4f}" if "score" in totals else ""
            notes.append(
                f"{title}: {totals['sparsity']:.2%} of the weights are zero; {totals['kept_parameters']:,} of "
                f"{totals['parameters']:,} parameters and {totals['kept_multiply_adds']:,} of "
                f"{totals['multiply_adds']:,} multiply-adds a row are not; {totals['bytes']:,} bytes in memory, "
                f"{totals['file_bytes']:,} in a file, {totals['compressed_bytes']:,} compressed{score}"
            )
    return Table(_HEAD, [_cells(layer) for layer in report["layers"]], notes=notes, left=2).text()


def plot_patterns(network: Network) -> Any:
    """Draw where the kernels of a network are not zero, a picture for each layer.

    Parameters
    ----------
    network : Network
        Pruned or not.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    rows = dense_rows(network)
    figure, axes = pyplot().subplots(1, len(rows), figsize=(4.0 * len(rows), 4.0), squeeze=False, layout="constrained")
    for ax, row in zip(axes[0], rows, strict=True):
        ax.imshow(row.kernel != 0, aspect="auto", interpolation="nearest", cmap="Greys", vmin=0, vmax=1)
        ax.set_title(f"{row.name}: {np.mean(row.kernel == 0):.1%} zero")
        ax.set_xlabel("output")
        ax.set_ylabel("input")
    return figure
