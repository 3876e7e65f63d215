"""Metrics that fit and evaluate report, under Keras's names.

Most are means over rows, computed in the compiled program; those of `nbdense.metrics.collected` collect all outputs of
an epoch and compute once. Where scikit-learn has the metric, the value is its value. As in Keras, sample and class
weights weigh the loss, not the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbdense._checks import positive_int
from nbdense._registry import Registry, objects_by_name
from nbdense.engine.elementwise import loss as rows
from nbdense.losses import Loss
from nbdense.metrics.base import COLLECTED as COLLECTED
from nbdense.metrics.base import Array, threshold_of
from nbdense.metrics.base import Metric as Metric
from nbdense.metrics.collected import AUC as AUC
from nbdense.metrics.collected import F1Score as F1Score
from nbdense.metrics.collected import FunctionMetric as FunctionMetric
from nbdense.metrics.collected import Precision as Precision
from nbdense.metrics.collected import R2Score as R2Score
from nbdense.metrics.collected import Recall as Recall
from nbdense.metrics.collected import as_columns

Spec = Any  # what compile takes: a name, a Metric, a class of one, a function, or what `serialize` made of one


@dataclass(frozen=True, init=False)
class BinaryAccuracy(Metric):
    """The share of outputs that are on their target's side of the threshold.

    Parameters
    ----------
    name : str
        Name in the logs.
    threshold : float
        An output above it counts as 1; a target does above 0.5. Only 0.5 is compiled, others collect outputs.
    """

    threshold: float
    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5) -> None:
        threshold = threshold_of("BinaryAccuracy", "threshold", threshold)
        super().__init__(name, rows.BINARY_ACCURACY if threshold == 0.5 else COLLECTED)
        self._set(threshold=threshold, collects=threshold != 0.5)

    def compute(self, targets: Array, outputs: Array) -> float:
        targets, outputs = as_columns(targets, outputs)
        return float(np.mean((outputs > self.threshold) == (targets > 0.5))) if len(outputs) else math.nan


@dataclass(frozen=True, init=False)
class CategoricalAccuracy(Metric):
    """The share of rows whose largest output is at the largest target.

    Parameters
    ----------
    name : str
        Name in the logs.
    """

    direction = "max"
    targets = "rows"

    def __init__(self, name: str = "categorical_accuracy") -> None:
        super().__init__(name, rows.CATEGORICAL_ACCURACY)


@dataclass(frozen=True, init=False)
class SparseCategoricalAccuracy(Metric):
    """The share of rows whose largest output is at the class number that is their target.

    Parameters
    ----------
    name : str
        Name in the logs.
    """

    direction = "max"
    targets = "classes"

    def __init__(self, name: str = "sparse_categorical_accuracy") -> None:
        super().__init__(name, rows.SPARSE_CATEGORICAL_ACCURACY)


@dataclass(frozen=True, init=False)
class TopKCategoricalAccuracy(Metric):
    """The share of rows in which fewer than k outputs are larger than the one at the largest target.

    So ties count as hits, as in Keras. A row whose output there is NaN is none.

    Parameters
    ----------
    k : int
        How many outputs are looked at; at least 1.
    name : str
        Name in the logs.
    """

    k: int
    direction = "max"
    targets = "rows"

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy") -> None:
        k = positive_int("TopKCategoricalAccuracy", "k", k)
        super().__init__(name, rows.TOP_K + min(k, rows.TOP_K - 1))
        self._set(k=k)


@dataclass(frozen=True, init=False)
class SparseTopKCategoricalAccuracy(Metric):
    """`TopKCategoricalAccuracy` with class numbers for targets.

    Parameters
    ----------
    k : int
        How many outputs are looked at; at least 1.
    name : str
        Name in the logs.
    """

    k: int
    direction = "max"
    targets = "classes"

    def __init__(self, k: int = 5, name: str = "sparse_top_k_categorical_accuracy") -> None:
        k = positive_int("SparseTopKCategoricalAccuracy", "k", k)
        super().__init__(name, rows.SPARSE_TOP_K + min(k, rows.TOP_K - 1))
        self._set(k=k)


@dataclass(frozen=True, init=False)
class MeanSquaredError(Metric):
    """Mean of (output - target)^2 over rows and columns.

    Parameters
    ----------
    name : str
        Name in the logs.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "mean_squared_error") -> None:
        super().__init__(name, rows.SQUARED_ERROR)


@dataclass(frozen=True, init=False)
class RootMeanSquaredError(Metric):
    """The root of the mean of (output - target)^2 over rows and columns.

    With several outputs it is one root of one mean, as in Keras; scikit-learn averages a root for each column.

    Parameters
    ----------
    name : str
        Name in the logs.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "root_mean_squared_error") -> None:
        super().__init__(name, rows.SQUARED_ERROR)

    def finish(self, mean: float) -> float:
        return math.sqrt(mean)


@dataclass(frozen=True, init=False)
class MeanAbsoluteError(Metric):
    """Mean of |output - target| over rows and columns.

    Parameters
    ----------
    name : str
        Name in the logs.
    """

    direction = "min"
    targets = "rows"

    def __init__(self, name: str = "mean_absolute_error") -> None:
        super().__init__(name, rows.ABSOLUTE_ERROR)


# -- names and files --------------------------------------------------------------------------------------------------

_CLASSES: dict[str, type[Metric]] = {
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "root_mean_squared_error": RootMeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "precision": Precision,
    "recall": Recall,
    "f1_score": F1Score,
    "auc": AUC,
    "r2_score": R2Score,
}
_ALIASES = {
    "mse": "mean_squared_error",
    "MSE": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "RMSE": "root_mean_squared_error",
    "mae": "mean_absolute_error",
    "MAE": "mean_absolute_error",
    "f1": "f1_score",
    "r2": "r2_score",
}
REGISTRY: Registry[Metric] = Registry(
    "metric",
    Metric,
    _CLASSES,
    _ALIASES,
    listed=("accuracy", *sorted(name for name in [*_CLASSES, *_ALIASES] if name.islower())),
    from_function=FunctionMetric,
)
METRICS: dict[str, type[Metric]] = REGISTRY.by_name


def get(metric: Spec, loss: Loss, n_out: int) -> Metric:
    """Return the metric that a name, class, function or description stands for, fit for the loss's targets.

    'accuracy' (or 'acc') is the accuracy that fits the targets and outputs, as in Keras. A metric that is given by
    name is reported under that name.

    Parameters
    ----------
    metric : str, Metric, type, callable or dict
        A name in METRICS, a metric or a class of one, a function (targets, outputs) -> number, or what `serialize`
        returned.
    loss : Loss
        Says which targets there are.
    n_out : int
        How many outputs the model has.

    Returns
    -------
    Metric

    Raises
    ------
    ValueError
        If there is no such metric, or it does not fit the loss's targets.
    """
    chosen = deserialize(metric) if isinstance(metric, Mapping) else metric
    chosen = _named(chosen, loss, n_out) if isinstance(chosen, str) else REGISTRY.get(chosen)
    return chosen.for_loss(loss, n_out)


def get_all(metrics: Iterable[Spec], loss: Loss, n_out: int) -> list[Metric]:
    """Return the metric of each; a name that is taken already gets a number, as in Keras: auc, auc_1.

    Parameters
    ----------
    metrics : iterable
        Names, classes, functions or metrics, as `get` takes them.
    loss : Loss
        Says which targets there are.
    n_out : int
        How many outputs the model has.

    Returns
    -------
    list of Metric
        Their names all differ.
    """
    chosen: list[Metric] = []
    taken: set[str] = set()
    for metric in (get(each, loss, n_out) for each in metrics):
        name, number = metric.name, 0
        while name in taken:
            number += 1
            name = f"{metric.name}_{number}"
        taken.add(name)
        chosen.append(metric if name == metric.name else metric.renamed(name))
    return chosen


def _named(name: str, loss: Loss, n_out: int) -> Metric:
    if name.lower() in ("accuracy", "acc"):
        if loss.sparse:
            return SparseCategoricalAccuracy(name)
        return BinaryAccuracy(name) if n_out == 1 else CategoricalAccuracy(name)
    row = REGISTRY.find(name)
    return REGISTRY.make(row, {"name": name}) if isinstance(row, type) else REGISTRY.get(name)


def direction_of(name: str, metrics: Iterable[Metric]) -> str:
    """Return which way the value reported as ``name`` gets better: "min", "max", or "" where nobody has said.

    Parameters
    ----------
    name : str
        A key of the history; ``val_`` before it changes nothing.
    metrics : iterable of Metric
        The model's, under the names that they are reported as: what `get_all` gives.

    Returns
    -------
    str
    """
    name = name.removeprefix("val_")
    return "min" if name == "loss" else next((metric.direction for metric in metrics if metric.name == name), "")


def serialize(metric: Spec) -> str | dict[str, Any]:
    """Describe a metric for a file, so that `get` and `deserialize` make it again.

    Parameters
    ----------
    metric : str, Metric, type or callable
        What compile takes.

    Returns
    -------
    str or dict
        A name as it is; else {"class_name": ..., "config": ...}, of numbers and strings. Of a function only the name
        is kept.
    """
    if isinstance(metric, str | dict):
        return metric
    if not callable(metric) and (not isinstance(metric, Metric) or type(metric) is Metric):
        raise ValueError(f"serialize: expected a name, a function, or a metric of a class of its own, got {metric!r}")
    description: dict[str, Any] = REGISTRY.serialize(metric)
    return description


def deserialize(config: str | Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> str | Metric:
    """Make the metric that `serialize` described; a name is returned as it is.

    Parameters
    ----------
    config : str or mapping
        What `serialize` returned.
    custom_objects : mapping of str to class or function, optional
        Metrics of one's own, by class or function name. Nothing is ever imported.

    Returns
    -------
    str or Metric

    Raises
    ------
    ValueError
        If the description is none, or names what is neither here nor in ``custom_objects``.
    """
    if isinstance(config, str):
        return config
    if not isinstance(config, Mapping) or not isinstance(config.get("config"), Mapping):
        raise ValueError(f"metric: expected a name, or class_name and config, got {config!r}")
    name, options, own = str(config.get("class_name")), dict(config["config"]), custom_objects or objects_by_name()
    try:
        if name == FunctionMetric.__name__:
            name = str(options.pop("function", None))
            if name in own:
                return FunctionMetric(own[name], **options)
        elif name in own:
            metric: Metric = own[name](**options)
            return metric
        elif name in METRICS:
            return METRICS[name](**options)
    except TypeError as error:
        raise ValueError(f"metric {name!r}: {options!r} are not its arguments: {error}") from error
    raise ValueError(f"metric {name!r} is not nbdense's: pass custom_objects={{{name!r}: ...}}")
