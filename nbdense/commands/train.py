"""``nbdense train``: a table becomes a folder with a fitted pipeline, its scores, a report and one ONNX file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain
from nbdense._version import __version__
from nbdense.commands.errors import CommandError, need_extra
from nbdense.commands.page.document import page_files
from nbdense.commands.tables.cells import features_of, target_of
from nbdense.commands.tables.finding import find_schema, listed
from nbdense.commands.tables.reading import EXTRA, read_table
from nbdense.commands.tables.schema import CLASSIFICATION, KINDS, Schema, Wishes
from nbdense.commands.tables.summary import figures_of, summary_of
from nbdense.commands.trained import fitting
from nbdense.commands.trained.folder import check_free, write_trained
from nbdense.commands.trained.graphs import graph_of
from nbdense.commands.trained.names import GRAPH
from nbdense.commands.trained.pipelines import columns_of_network, new_pipeline
from nbdense.commands.trained.scores import importance_of, score_text, scores_of

MOST_CLASSES = 1000
RARE = 0.5  # of an equal share: a class with less is worth a word
STEPS, LARGEST_BATCH = 50, 200  # of an epoch at least, where no batch is given; and rows a step at most


@dataclass(frozen=True)
class Options:
    """The choices of a training.

    Attributes
    ----------
    target : str
        The column that is predicted.
    wishes : Wishes
        The user's say in what the columns are.
    separator : str or None
        What stands between the cells of a CSV file.
    hidden : tuple of int
        Units of the hidden layers.
    activation : str
        Their activation.
    epochs, batch, patience : int
        Epochs at most; rows a step, 0 for a fiftieth of all, 16 to 200; epochs without a gain that end it.
    rate, alpha : float
        Step size, and L2 penalty.
    seed : int
        Seed of split, weights and order.
    test : float
        Share of the rows that is held out for the test.
    class_weight : mapping of str to float, "balanced" or None
        Weights of classes, by their names.
    """

    target: str
    wishes: Wishes
    separator: str | None = None
    hidden: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    epochs: int = 200
    batch: int = 0
    patience: int = 10
    rate: float = 0.001
    alpha: float = 1e-4
    seed: int = 0
    test: float = 0.2
    class_weight: Mapping[str, float] | str | None = None


@dataclass
class _Data:
    """A table, in two parts."""

    schema: Schema
    features: Any
    targets: npt.NDArray[Any]
    learnt: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]
    notes: list[str] = field(default_factory=list)


def run(
    data: Path, out: Path, options: Options, overwrite: bool = False, tell: Callable[[str], Any] = print
) -> dict[str, Any]:
    """Train on a table, and write the folder.

    Parameters
    ----------
    data : Path
        The table's file.
    out : Path
        The folder to write.
    options : Options
        The choices.
    overwrite : bool
        Whether to replace a folder that was written so before.
    tell : callable
        Called with lines on what was found, as soon as it is.

    Returns
    -------
    dict
        What metrics.json says, and the seconds that it took.

    Raises
    ------
    CommandError
        If the data or the options will not do, or a package is missing.
    """
    with need_extra(EXTRA, "tables of data"):
        import pandas as pd  # noqa: F401
        import skl2onnx  # noqa: F401
        import sklearn  # noqa: F401
        import skops  # noqa: F401
    check_free(out, overwrite)
    _need_writable(out)
    started = time.perf_counter()
    loaded = _load(data, options)
    for line in _found(data, loaded, options):
        tell(line)
    pipeline = new_pipeline(loaded.schema, loaded.features.iloc[loaded.learnt], _arguments(loaded, options))
    scale = _fit(pipeline, loaded)
    metrics = _measure(pipeline, loaded, options, data.name)
    metrics["target_scale"] = scale
    content, problem = graph_of(pipeline, loaded.schema, loaded.features)
    if problem:
        metrics["notes"].append(f"no ONNX file: {problem}")
    metrics["sizes"] = {
        "parameters": metrics["network"]["parameters"],
        "float32_bytes": 4 * metrics["network"]["parameters"],
        "onnx_bytes": len(content) if content else None,
    }
    files = {**({GRAPH: content} if content else {}), **page_files(metrics)}
    write_trained(out, loaded.schema, pipeline, metrics, files, overwrite)
    return {**metrics, "seconds": time.perf_counter() - started}  # which are not the same for the same seed


def report(metrics: Mapping[str, Any], out: Path) -> str:
    """Return the text of the results.

    Parameters
    ----------
    metrics : mapping
        What `run` returned.
    out : Path
        The folder.
    """
    training = metrics["training"]
    lines = [
        (
            f"trained in {training['epochs']} epochs: {'-'.join(map(str, metrics['network']['widths']))}, "
            f"{metrics['network']['parameters']:,} parameters"
        )
    ]
    lines += [f"{part:<5} {score_text(metrics[part])}" for part in ("train", "test") if metrics[part]]
    first = [entry["name"] for entry in metrics["importance"][:5] if entry["mean"] > 0]
    if first:
        lines.append(f"columns that matter most: {', '.join(first)}")
    lines += [f"note: {note}" for note in metrics["notes"]]
    lines.append(f"{metrics['seconds']:.1f} s in all; wrote the folder {out} (report.html shows it all)")
    return "\n".join(lines)


def _need_writable(out: Path) -> None:
    """Refuse a folder that cannot be made: before the training, not after it."""
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CommandError(f"cannot write the folder {out}: {parent} is no folder that can be written to")


def _load(data: Path, options: Options) -> _Data:
    kinds = options.wishes.kinds.values()
    table = read_table(data, options.separator, [column.name for column in kinds if column.kind == "text"])
    if options.target not in table.columns and len(table.columns) == 1:
        raise CommandError(
            f"{data} has one column, {table.columns[0]!r}, and no {options.target!r}: is another --separator meant?"
        )
    schema = find_schema(table, options.target, options.wishes)
    targets, there = target_of(table, schema, str(data))
    features = features_of(table, schema, str(data))
    notes = []
    if not there.all():
        notes.append(f"{np.sum(~there):,} rows have no {schema.target!r} and are left out")
        features = features[there]
    if schema.task == CLASSIFICATION:
        classes = np.unique(targets)
        if len(classes) < 2:
            raise CommandError(
                f"the target {schema.target!r} is {classes[0]!s} in every row: there is nothing to learn"
            )
        if len(classes) > MOST_CLASSES or len(classes) > len(targets) / 2:
            raise CommandError(
                f"the target {schema.target!r} has {len(classes):,} classes in {len(targets):,} rows; "
                "--task regression predicts numbers"
            )
    elif not np.ptp(targets):
        raise CommandError(f"the target {schema.target!r} is {targets[0]:g} in every row: there is nothing to learn")
    learnt, test = fitting.split_rows(targets, options.test, options.seed, schema.task)
    if schema.task == CLASSIFICATION and len(np.unique(targets[learnt])) < 2:
        raise CommandError("the rows to learn from are all of one class; give more rows, or a smaller --test")
    return _Data(schema, features, targets, learnt, test, notes)


def _found(data: Path, loaded: _Data, options: Options) -> list[str]:
    """Return lines on the columns and the task."""
    schema = loaded.schema
    lines = [f"{data}: {len(loaded.targets):,} rows, {len(schema.columns)} columns to learn from"]
    for kind in KINDS:
        names = schema.names(kind)
        if names:
            lines.append(f"  {kind:<9}{listed(names)}")
    lines += [f"  left out {name}: {reason}" for name, reason in schema.left_out.items()]
    lines.append(f"target {schema.target!r}: {schema.task}{_target_text(loaded)}")
    lines += [f"note: {note}" for note in loaded.notes]
    shares = _shares(loaded)
    rarest = min(shares, key=lambda label: shares[label], default=None)
    if rarest is not None and shares[rarest] < RARE / len(shares) and options.class_weight is None:
        lines.append(
            f"note: {rarest} is in {shares[rarest]:.1%} of the rows; "
            "--class-weight balanced lets all classes weigh alike"
        )
    return lines


def _target_text(loaded: _Data) -> str:
    if loaded.schema.task != CLASSIFICATION:
        return f", {loaded.targets.min():g} to {loaded.targets.max():g}"
    shares = _shares(loaded)
    return f", {len(shares)} classes: {listed([f'{label} {share:.1%}' for label, share in shares.items()])}"


def _shares(loaded: _Data) -> dict[str, float]:
    """Return the share of each class; none of a regression."""
    return {label: count / len(loaded.targets) for label, count in _counts(loaded).items()}


def _counts(loaded: _Data) -> dict[str, int]:
    if loaded.schema.task != CLASSIFICATION:
        return {}
    labels, counts = np.unique(loaded.targets, return_counts=True)
    return {str(label): int(count) for label, count in zip(labels, counts, strict=True)}


def _arguments(loaded: _Data, options: Options) -> dict[str, Any]:
    """Return the estimator's."""
    targets = loaded.targets[loaded.learnt]
    arguments: dict[str, Any] = {
        "hidden_layer_sizes": options.hidden,
        "activation": options.activation,
        "alpha": options.alpha,
        "batch_size": min(options.batch or min(max(len(targets) // STEPS, 16), LARGEST_BATCH), len(targets)),
        "learning_rate_init": options.rate,
        "max_iter": options.epochs,
        "n_iter_no_change": options.patience,
        "random_state": options.seed % 2**32,
        "early_stopping": fitting.stops_early(targets, loaded.schema.task),
        "validation_fraction": fitting.VALIDATION,
    }
    if loaded.schema.task == CLASSIFICATION:
        arguments["class_weight"] = _class_weight(options.class_weight, np.unique(targets))
    elif options.class_weight is not None:
        raise CommandError("--class-weight goes with classification; this is a regression")
    return arguments


def _class_weight(wanted: Mapping[str, float] | str | None, classes: npt.NDArray[Any]) -> Any:
    """Return the weights under the labels themselves, which the command line knows as text."""
    if not isinstance(wanted, Mapping):
        return wanted
    labels = {str(label): plain(label) for label in classes}
    strangers = [name for name in wanted if name not in labels]
    if strangers:
        raise CommandError(f"--class-weight: {strangers[0]!r} is none of the classes, which are {listed(list(labels))}")
    return {labels[name]: weight for name, weight in wanted.items()}


def _fit(pipeline: Any, loaded: _Data) -> tuple[float, float] | None:
    """Fit the pipeline; return mean and deviation of a regression's target, which its last layer has taken in."""
    targets, features = loaded.targets[loaded.learnt], loaded.features.iloc[loaded.learnt]
    if loaded.schema.task == CLASSIFICATION:
        loaded.notes += fitting.fit_network(pipeline, features, targets, "train")
        return None
    mean, deviation = float(targets.mean()), float(targets.std()) or 1.0
    loaded.notes += fitting.fit_network(pipeline, features, (targets - mean) / deviation, "train")
    fitting.scale_output(pipeline.steps[-1][1].model_, mean, deviation)
    return mean, deviation


def _measure(pipeline: Any, loaded: _Data, options: Options, file: str) -> dict[str, Any]:
    schema, mlp = loaded.schema, pipeline.steps[-1][1]
    parts: dict[str, Any] = {
        name: scores_of(pipeline, loaded.features.iloc[rows], loaded.targets[rows], schema.task) if len(rows) else None
        for name, rows in (("train", loaded.learnt), ("test", loaded.test))
    }
    judged = loaded.test if len(loaded.test) else loaded.learnt
    network = mlp.model_.network
    return {
        "nbdense_version": __version__,
        "task": schema.task,
        "target": schema.target,
        "data": {
            "file": file,
            "rows": len(loaded.targets),
            "columns": summary_of(loaded.features, schema),
            "left_out": schema.left_out,
            "target": _target_summary(loaded),
        },
        "training": {
            "rows": len(loaded.learnt),
            "test_rows": len(loaded.test),
            "epochs": int(mlp.n_iter_),
            "loss": [float(value) for value in mlp.loss_curve_],
            "validation": [float(value) for value in getattr(mlp, "validation_scores_", None) or []],
            "options": {name: plain(value) for name, value in mlp.get_params().items()},
        },
        **parts,
        "importance": importance_of(pipeline, loaded.features.iloc[judged], loaded.targets[judged], options.seed),
        "network": {
            "widths": widths_of(mlp.model_),
            "parameters": sum(int(np.prod(parameter.shape)) for parameter in network.parameters),
            "columns": columns_of_network(pipeline),
        },
        "notes": loaded.notes,
    }


def widths_of(model: Any) -> list[int]:
    """Return the widths of a network's layers, its input's first.

    Parameters
    ----------
    model : Sequential
        A network of dense layers.
    """
    return [int(model.network.n_in), *(int(bias.shape[0]) for bias in _biases(model))]


def _biases(model: Any) -> Sequence[npt.NDArray[Any]]:
    return [weights for weights in model.get_weights() if weights.ndim == 1]


def _target_summary(loaded: _Data) -> dict[str, Any]:
    if loaded.schema.task != CLASSIFICATION:
        return figures_of(loaded.targets)
    return {"classes": _counts(loaded)}
