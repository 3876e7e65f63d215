"""``nbdense quantize``: a trained folder, or a model's file, in integers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbdense.commands.errors import CommandError, writing
from nbdense.commands.tables.reading import read_matrix
from nbdense.commands.trained.changing import Rows, read_rows, write_changed
from nbdense.commands.trained.folder import TrainedFolder, check_free, is_trained
from nbdense.commands.trained.loading import load_any
from nbdense.commands.trained.pipelines import rows_for_network

CALIBRATION_ROWS = 1024


def run(
    model: Path,
    data: Path | None,
    out: Path,
    options: Mapping[str, Any],
    budget: float | None = None,
    overwrite: bool = False,
    drop: Collection[str] = (),
    separator: str | None = None,
) -> dict[str, Any]:
    """Quantize a model, and write it.

    Parameters
    ----------
    model : Path
        A folder that `train` or `prune` wrote, or a file of a float model.
    data : Path or None
        Rows to calibrate with: of a folder a table, of a file rows as the model reads them.
    out : Path
        What to write: a folder, or a file.
    options : mapping
        Options of `nbdense.quant.quantize`.
    budget : float, optional
        How much of the score may be lost on the data, which has the target then.
    overwrite : bool
        Whether to replace a folder.
    drop : collection of str
        Columns of the table that are left out.
    separator : str, optional
        What stands between the cells of a CSV file.

    Returns
    -------
    dict
        What was written, the report, and the scores before and after, where the data has the target.

    Raises
    ------
    CommandError
        If the model or the data will not do.
    """
    from nbdense.quant import quantize

    if is_trained(model):
        check_free(out, overwrite)
        trained = TrainedFolder.open(model)
        _refuse_quantized(model, trained.network)
        rows = None if data is None else read_rows(trained, data, drop, separator)
        limits = _budget_options(trained, rows, budget)
        calibration = None if rows is None else rows_for_network(trained.pipeline, _some(rows.features))
        quantized = quantize(trained.network, calibration, **options, **limits)
        result = write_changed(
            trained,
            quantized,
            rows,
            out,
            overwrite,
            {"quantization": {"report": quantized.report("dict", timings=False)}},
        )
        return {**result, "report": quantized.report("text", timings=False)}
    if budget is not None:
        raise CommandError("--budget goes with a folder that train wrote, whose data has the target")
    source = load_any(model)
    _refuse_quantized(model, source)
    calibration = None if data is None else read_matrix(data, separator)
    quantized = quantize(source, calibration, **options)
    with writing(out):
        quantized.save(out)
    return {"out": out, "bytes": quantized.size_bytes, "report": quantized.report("text", timings=False)}


def _some(features: Any) -> Any:
    """Return the rows to calibrate with, from all of the data."""
    return features.iloc[np.unique(np.linspace(0, len(features) - 1, CALIBRATION_ROWS).astype(np.int64))]


def _refuse_quantized(path: Path, network: Any) -> None:
    from nbdense.models import Sequential

    if not isinstance(network, Sequential):
        raise CommandError(
            f"{path} holds a {type(network).__name__}, which is quantized or sparse already: give a float model"
        )


def _budget_options(trained: TrainedFolder, rows: Rows | None, budget: float | None) -> dict[str, Any]:
    """Return quantize's options for a budget: the score on the data's rows."""
    if budget is None:
        return {}
    if rows is None or rows.targets is None:
        raise CommandError(f"--budget needs --data that has the target {trained.schema.target!r}")
    x, targets = rows_for_network(trained.pipeline, rows.features[rows.there]), rows.targets
    estimator = trained.pipeline[-1]
    return {
        "accuracy_budget": budget,
        "evaluate": lambda model: float(estimator.with_model(model).score(x, targets)),
    }
