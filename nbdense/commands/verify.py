"""``nbdense verify``: whether a model's other form computes what the model computes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbdense.commands.errors import CommandError
from nbdense.commands.tables.cells import features_of
from nbdense.commands.tables.reading import read_matrix
from nbdense.commands.trained.folder import TrainedFolder, is_trained
from nbdense.commands.trained.graphs import run_graph
from nbdense.commands.trained.loading import load_any, read_for
from nbdense.commands.trained.names import GRAPH
from nbdense.commands.trained.stand_in import stand_in_rows

FLOAT = 1e-4  # of an output's scale: 1 for probabilities, the deviation of values


def run(
    model: Path,
    other: Path | None = None,
    data: Path | None = None,
    drop: Collection[str] = (),
    separator: str | None = None,
) -> dict[str, Any]:
    """Compare a model with its ONNX or TFLite form.

    Parameters
    ----------
    model : Path
        A folder that `train` wrote, or a model's file.
    other : Path, optional
        The ONNX or TFLite file; of a folder the ONNX file in it.
    data : Path, optional
        Rows to compare on; by default drawn ones.
    drop : collection of str
        Columns of the data that are left out.
    separator : str, optional
        What stands between the cells of a CSV file.

    Returns
    -------
    dict
        "agrees", "rows" and "text".

    Raises
    ------
    CommandError
        If a file is missing or will not do.
    """
    if is_trained(model):
        return _pipeline(TrainedFolder.open(model), other, data, drop, separator)
    if other is None:
        raise CommandError(
            f"{model} is no folder that train wrote: name the ONNX or TFLite file to compare it with too"
        )
    if not other.is_file():
        raise CommandError(f"no file at {other}")
    network = load_any(model)
    rows = None if data is None else read_matrix(data, separator)
    if other.suffix.lower() == ".tflite":
        from nbdense.export import verify_tflite

        result: Any = verify_tflite(other, network, rows)
    else:
        from nbdense.export import verify_onnx

        result = verify_onnx(other, network, rows)
    return {"agrees": bool(result.agrees), "rows": result.rows, "text": str(result)}


def _pipeline(
    trained: TrainedFolder, other: Path | None, data: Path | None, drop: Collection[str], separator: str | None
) -> dict[str, Any]:
    """Compare a pipeline with its ONNX file on a table's raw columns."""
    path = trained.path / GRAPH if other is None else other
    if not path.is_file():
        raise CommandError(f"no ONNX file at {path}")
    if data is None:
        features = stand_in_rows(trained.metrics)
    else:
        features = features_of(read_for(trained.schema, data, drop, separator), trained.schema, str(data))
    computed = run_graph(path.read_bytes(), features)
    found = compare(trained.pipeline, features, computed, not hasattr(trained.network, "get_weights"))
    differing = found["differing_labels"]
    labels = "" if differing is None else f", {differing:,} labels differ"
    text = (
        f"{'agrees' if found['agrees'] else 'differs'}: {path.name} on {found['rows']:,} "
        f"{'drawn ' if data is None else ''}rows; largest difference {found['largest_difference']:.3g}{labels}"
    )
    return {**found, "text": text}


def compare(pipeline: Any, features: Any, computed: Mapping[str, Any], quantized: bool) -> dict[str, Any]:
    """Compare what a pipeline predicts with what its ONNX file computes.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    features : DataFrame
        Columns of data.
    computed : mapping
        As `run_graph` returns it, of the same rows.
    quantized : bool
        Whether the network is of integers: where an input lies between two of them, rounding decides.

    Returns
    -------
    dict
        "agrees", "rows", "largest_difference" and "differing_labels".
    """
    from nbdense.export.verify.integers import FLIPPED, rows_agree

    differing = None
    if "label" in computed:
        expected, values = pipeline.predict_proba(features), computed["probabilities"]
        differing = int(np.sum(pipeline.predict(features) != computed["label"]))
        scale = 1.0
    else:
        expected, values = np.asarray(pipeline.predict(features)).reshape(-1, 1), computed["output"]
        scale = float(expected.std()) or 1.0
    difference = np.abs(expected.astype(np.float64) - values).max(axis=1)
    tolerance = FLIPPED[1] if quantized else FLOAT
    close = rows_agree(expected, values, FLOAT) if quantized else bool(difference.max() <= FLOAT * scale)
    unsure = 0 if differing is None else _unsure(expected, tolerance)
    return {
        "agrees": close and (differing or 0) <= unsure,
        "rows": len(features),
        "largest_difference": float(difference.max()),
        "differing_labels": differing,
    }


def _unsure(probabilities: Any, tolerance: float) -> int:
    """Count the rows whose two largest probabilities are so close that rounding may swap them."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return int((two[:, 1] - two[:, 0] <= 2 * tolerance).sum())
