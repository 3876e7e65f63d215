"""A trained folder with another network in it: quantized or pruned, scored beside the one before, and written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.page.document import page_files
from nbdense.commands.tables.cells import features_of, target_of
from nbdense.commands.trained.folder import TrainedFolder, write_trained
from nbdense.commands.trained.graphs import graph_of
from nbdense.commands.trained.loading import read_for
from nbdense.commands.trained.names import GRAPH
from nbdense.commands.trained.scores import importance_of, main_score, scores_of
from nbdense.commands.trained.stand_in import stand_in_rows


@dataclass(frozen=True)
class Rows:
    """A table for a trained folder.

    Attributes
    ----------
    name : str
        The file's.
    features : DataFrame
        The columns.
    targets : ndarray or None
        Of the rows that have one; None where the table lacks the column.
    there : ndarray of bool, (rows,)
        Which rows have one.
    """

    name: str
    features: Any
    targets: npt.NDArray[Any] | None
    there: npt.NDArray[np.bool_]

    def known(self) -> tuple[Any, npt.NDArray[Any]] | None:
        """Return columns and targets of the rows that have one; None where the table lacks the target."""
        return None if self.targets is None else (self.features[self.there], self.targets)


def read_rows(trained: TrainedFolder, data: Path, drop: Collection[str], separator: str | None) -> Rows:
    """Read a table for a trained folder.

    Parameters
    ----------
    trained : TrainedFolder
        The folder.
    data : Path
        The table's file.
    drop : collection of str
        Columns that are left out.
    separator : str or None
        What stands between the cells of a CSV file.

    Raises
    ------
    CommandError
        If it will not do.
    """
    schema = trained.schema
    table = read_for(schema, data, drop, separator)
    features = features_of(table, schema, str(data))
    if schema.target not in table.columns:
        return Rows(data.name, features, None, np.ones(len(table), np.bool_))
    return Rows(data.name, features, *target_of(table, schema, str(data)))


def write_changed(
    trained: TrainedFolder,
    network: Any,
    rows: Rows | None,
    out: Path,
    overwrite: bool,
    entries: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a folder with another network, its ONNX file, its report and, where the data has the target, its scores.

    Parameters
    ----------
    trained : TrainedFolder
        The folder as it was; its pipeline gets the network.
    network : Sequential or QuantizedModel
        The network.
    rows : Rows or None
        Data.
    out : Path
        The folder to write.
    overwrite : bool
        Whether to replace one.
    entries : mapping
        What metrics.json says beside.

    Returns
    -------
    dict
        "out", "sizes", "notes", and "before" and "after", the scores where the data has the target.
    """
    schema, pipeline = trained.schema, trained.pipeline
    metrics: dict[str, Any] = {**trained.metrics, **entries, "notes": list(trained.metrics.get("notes", []))}
    result: dict[str, Any] = {"out": out}
    known = None if rows is None else rows.known()
    if known is not None:
        result["before"] = scores_of(pipeline, *known, schema.task)
    pipeline.steps[-1][1].model_ = network
    if rows is not None and known is not None:
        result["after"] = metrics["test"] = scores_of(pipeline, *known, schema.task)
        metrics["importance"] = importance_of(pipeline, *known, 0)
        metrics["notes"].append(f"scores are of the changed network, on {rows.name}")
    else:
        metrics["notes"].append("scores are of the network before it was changed")
    content, problem = graph_of(pipeline, schema, rows.features if rows is not None else stand_in_rows(trained.metrics))
    if problem:
        metrics["notes"].append(f"no ONNX file: {problem}")
    metrics["sizes"] = {
        **trained.metrics.get("sizes", {}),
        "network_bytes": bytes_of(network),
        "onnx_bytes": len(content) if content else None,
    }
    metrics["network"] = {**trained.metrics["network"], **_network_entry(network), **entries.get("pruned", {})}
    files = {**({GRAPH: content} if content else {}), **page_files(metrics)}
    write_trained(out, schema, pipeline, metrics, files, overwrite)
    return {**result, "sizes": metrics["sizes"], "notes": metrics["notes"]}


def change_text(result: Mapping[str, Any]) -> str:
    """Return the text of what a command that changes a model did: its report, scores, and what was written.

    Parameters
    ----------
    result : mapping
        What `write_changed` returned, and "report"; of a file alone, that and "out".
    """
    lines = [result["report"]]
    if "before" in result:
        name, before = main_score(result["before"])
        after = main_score(result["after"])[1]
        lines.append(f"{name} {before:.4f} before, {after:.4f} after, on {result['after']['rows']:,} rows")
    lines += [f"note: {note}" for note in result.get("notes", []) if note.startswith("no ONNX")]
    return "\n".join([*lines, f"wrote {result['out']}"])


def bytes_of(network: Any) -> int:
    """Return the bytes of a network's arrays.

    Parameters
    ----------
    network : Sequential or QuantizedModel
        The network.
    """
    if hasattr(network, "size_bytes"):
        return int(network.size_bytes)
    return sum(weights.nbytes for weights in network.get_weights())


def _network_entry(network: Any) -> dict[str, Any]:
    """Return widths and parameters of a float network, which may be narrower than it was."""
    if not hasattr(network, "get_weights"):
        return {}
    weights = network.get_weights()
    return {
        "widths": [int(network.network.n_in), *(len(bias) for bias in weights if bias.ndim == 1)],
        "parameters": sum(tensor.size for tensor in weights),
    }
