"""``nbdense prune``: a trained folder, or a model's file, without its least weights or neurons."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbdense.commands.errors import CommandError, writing
from nbdense.commands.tables.schema import CLASSIFICATION
from nbdense.commands.trained.changing import Rows, read_rows, write_changed
from nbdense.commands.trained.fitting import with_unit_output
from nbdense.commands.trained.folder import TrainedFolder, check_free, is_trained
from nbdense.commands.trained.loading import load_any
from nbdense.commands.trained.pipelines import rows_for_network
from nbdense.commands.trained.progress import EpochBar, on_terminal


def run(
    model: Path,
    sparsity: float,
    out: Path,
    options: Mapping[str, Any],
    data: Path | None = None,
    epochs: int = 0,
    overwrite: bool = False,
    drop: Collection[str] = (),
    separator: str | None = None,
) -> dict[str, Any]:
    """Prune a model, train what is left for a while, and write it.

    Parameters
    ----------
    model : Path
        A folder that `train` wrote, or a file of a float model.
    sparsity : float
        Share of the weights, or of the neurons, that goes.
    out : Path
        What to write: a folder, or a file.
    options : mapping
        Options of `nbdense.quant.prune`.
    data : Path, optional
        A table with the target, to fine-tune on and to score by; of a folder only.
    epochs : int
        Epochs of fine-tuning.
    overwrite : bool
        Whether to replace a folder.
    drop : collection of str
        Columns of the table that are left out.
    separator : str, optional
        What stands between the cells of a CSV file.

    Returns
    -------
    dict
        What was written, the report, and the scores before and after, where there is data.

    Raises
    ------
    CommandError
        If the model or the data will not do.
    """
    from nbdense.models import Sequential
    from nbdense.quant import prune
    from nbdense.quant.pruning.report import pruning_report

    folder = is_trained(model)
    if data is not None and not folder:
        raise CommandError("--data goes with a folder that train wrote; from Python, prune() and fit() do it")
    trained = TrainedFolder.open(model) if folder else None
    source = load_any(model) if trained is None else trained.network
    if not isinstance(source, Sequential):
        raise CommandError(f"{model} holds a {type(source).__name__}: prune the float model, then quantize it")
    if trained is None:
        pruned = prune(source, sparsity, **options)
        with writing(out):
            pruned.save(out)
        return {"out": out, "report": pruning_report(pruned, source)}
    check_free(out, overwrite)
    rows = None if data is None else read_rows(trained, data, drop, separator)
    if rows is not None and rows.targets is None:
        raise CommandError(f"{data} lacks the target {trained.schema.target!r}, which fine-tuning needs")
    scale = trained.metrics.get("target_scale")

    def change(network: Any) -> Any:
        less = prune(network, sparsity, **options)
        if rows is not None and epochs:
            _fine_tune(trained, less, rows, epochs, scale)
        return less

    pruned = with_unit_output(source, scale, change)
    kernels = [weights for weights in pruned.get_weights() if weights.ndim == 2]
    counts = {"kept": sum(map(np.count_nonzero, kernels)), "weights": sum(kernel.size for kernel in kernels)}
    text = pruning_report(pruned, source)
    return {**write_changed(trained, pruned, rows, out, overwrite, {"pruned": counts}), "report": text}


def _fine_tune(
    trained: TrainedFolder, network: Any, rows: Rows, epochs: int, scale: tuple[float, float] | None
) -> None:
    """Train what is left of the weights by the loss, batch, step size and class weights of the first training."""
    from nbdense.optimizers import Adam

    chosen = trained.pipeline.steps[-1][1].get_params()
    x = rows_for_network(trained.pipeline, rows.features[rows.there]).astype(np.float32)
    weights = None
    assert rows.targets is not None
    if trained.schema.task == CLASSIFICATION:
        classes = trained.pipeline.classes_
        if not np.isin(rows.targets, classes).all():
            raise CommandError("the data has classes that the model does not know")
        targets: Any = np.searchsorted(classes, rows.targets)
        loss = "binary_crossentropy" if len(classes) == 2 else "sparse_categorical_crossentropy"
        weights = chosen["class_weight"]
        if isinstance(weights, Mapping):
            weights = {number: weights.get(label, 1.0) for number, label in enumerate(classes.tolist())}
    else:
        assert scale is not None
        targets, loss = (rows.targets - scale[0]) / scale[1], "mean_squared_error"
    network.compile(Adam(chosen["learning_rate_init"]), loss)
    bars = [EpochBar("fine-tune", epochs)] if on_terminal() else []
    network.fit(x, targets, min(chosen["batch_size"], len(x)), epochs, verbose=0, callbacks=bars, class_weight=weights)
