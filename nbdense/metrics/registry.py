"""Names of metrics, and their descriptions for files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nbdense import losses
from nbdense._registry import Registry, name_of, objects_by_name, snake_case
from nbdense.losses import Loss
from nbdense.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from nbdense.metrics.base import Metric
from nbdense.metrics.collected import ClassF1, ClassPrecision, ClassRecall, ExactAUC, FunctionMetric
from nbdense.metrics.confusion import FalseNegatives, FalsePositives, Precision, Recall, TrueNegatives, TruePositives
from nbdense.metrics.curves import (
    AUC,
    PrecisionAtRecall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
)
from nbdense.metrics.f_score import F1Score, FBetaScore
from nbdense.metrics.iou import BinaryIoU, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU
from nbdense.metrics.margins import CategoricalHinge, Hinge, SquaredHinge
from nbdense.metrics.probabilistic import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
)
from nbdense.metrics.reduction import Mean, MeanMetricWrapper, Sum
from nbdense.metrics.regression import (
    ConcordanceCorrelation,
    CosineSimilarity,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    PearsonCorrelation,
    R2Score,
    RootMeanSquaredError,
)

Spec = Any  # what compile takes: a name, a Metric, a class of one, a function, or what `serialize` made of one

_CLASSES: dict[str, type[Metric]] = {
    snake_case(kind.__name__): kind
    for kind in (
        Accuracy,
        BinaryAccuracy,
        CategoricalAccuracy,
        SparseCategoricalAccuracy,
        TopKCategoricalAccuracy,
        SparseTopKCategoricalAccuracy,
        MeanSquaredError,
        RootMeanSquaredError,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanSquaredLogarithmicError,
        CosineSimilarity,
        LogCoshError,
        R2Score,
        PearsonCorrelation,
        ConcordanceCorrelation,
        KLDivergence,
        Poisson,
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        Hinge,
        SquaredHinge,
        CategoricalHinge,
        TruePositives,
        TrueNegatives,
        FalsePositives,
        FalseNegatives,
        Precision,
        Recall,
        F1Score,
        FBetaScore,
        AUC,
        BinaryIoU,
        ClassPrecision,
        ClassRecall,
        ClassF1,
        ExactAUC,
    )
}
_SHORT = {
    "mse": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
}
_ALIASES = {
    **_SHORT,
    **{name.upper(): kind for name, kind in _SHORT.items()},
    "logcosh": "log_cosh_error",
    "log_cosh": "log_cosh_error",
    "fbeta_score": "f_beta_score",
    "f1": "class_f1",
    "r2": "r2_score",
}
# Metrics that `compile` has no use for by name: they take other arguments, or want some to be made.
_BY_CLASS: tuple[type[Metric], ...] = (
    Mean,
    Sum,
    MeanMetricWrapper,
    FunctionMetric,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    PrecisionAtRecall,
    RecallAtPrecision,
    IoU,
    MeanIoU,
    OneHotIoU,
    OneHotMeanIoU,
)


def _of_function(function: Callable[..., Any]) -> Metric:
    return MeanMetricWrapper(function, getattr(function, "name", None) or name_of(function))


REGISTRY: Registry[Metric] = Registry(
    "metric",
    Metric,
    _CLASSES,
    _ALIASES,
    listed=sorted(name for name in [*_CLASSES, *_ALIASES] if name.islower()),
    from_function=_of_function,
)
METRICS: dict[str, type[Metric]] = REGISTRY.by_name
_KINDS = {**METRICS, **{kind.__name__: kind for kind in _BY_CLASS}}
_FUNCTIONS = {FunctionMetric.__name__: "function", MeanMetricWrapper.__name__: "fn"}
# Descriptions of the time when these names had scikit-learn's values: by their arguments, and what has the values now.
_FORMER: dict[str, tuple[set[str], type[Metric]]] = {
    "Precision": ({"name", "average", "multi_label", "thresholds"}, ClassPrecision),
    "Recall": ({"name", "average", "multi_label", "thresholds"}, ClassRecall),
    "F1Score": ({"name", "average", "multi_label", "threshold"}, ClassF1),
    "AUC": ({"name", "num_thresholds", "curve", "multi_label"}, ExactAUC),
}


def get(metric: Spec, loss: Loss | None = None, n_out: int = 1) -> Metric:
    """Return the metric that a name, class, function or description stands for, fit for the loss's targets.

    'accuracy' (or 'acc') is the accuracy that fits the targets and outputs, as in Keras. A metric that is given by
    name is reported under that name; losses' names are names of metrics too.

    Parameters
    ----------
    metric : str, Metric, type, callable or dict
        A name in METRICS, a metric or a class of one, a function (y_true, y_pred), or what `serialize` returned.
    loss : Loss, optional
        Says which targets there are; without it, the metric is not fit to any.
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
    return chosen if loss is None else chosen.for_loss(loss, n_out)


def get_all(metrics: Iterable[Spec], loss: Loss, n_out: int, weighted: Iterable[Spec] = ()) -> list[Metric]:
    """Return the metric of each; a name that is taken already gets a number, as in Keras: auc, auc_1.

    A weighted one whose name is taken is called weighted_auc.

    Parameters
    ----------
    metrics : iterable
        Of what `get` takes.
    loss : Loss
        Says which targets there are.
    n_out : int
        How many outputs the model has.
    weighted : iterable
        Of what `get` takes: metrics that are handed the rows' weights.

    Returns
    -------
    list of Metric
        Their names all differ.
    """
    chosen: list[Metric] = []
    taken: set[str] = set()
    each_of = [get(each, loss, n_out) for each in metrics]
    for metric in each_of + [get(each, loss, n_out).taking_weights() for each in weighted]:
        base = f"weighted_{metric.name}" if metric.weighted and metric.name in taken else metric.name
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        chosen.append(metric if name == metric.name else metric.renamed(name))
    return chosen


def _named(name: str, loss: Loss | None, n_out: int) -> Metric:
    if name.lower() in ("accuracy", "acc"):
        if loss is None:
            return Accuracy(name)
        if loss.sparse:
            return SparseCategoricalAccuracy(name)
        return BinaryAccuracy(name) if n_out == 1 else CategoricalAccuracy(name)
    row = REGISTRY.find(name)
    if row is None and name in losses.LOSSES:
        return _of_loss(name)
    return REGISTRY.make(row, {"name": name}) if isinstance(row, type) else REGISTRY.get(name)


def _of_loss(name: str) -> Metric:
    loss = losses.LOSSES[name]()
    metric = MeanMetricWrapper(loss.call, name)
    metric.direction, metric.targets = "min", "classes" if loss.sparse else "rows"
    return metric


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
    if type(metric) is Metric:
        raise ValueError(f"serialize: {metric!r} is no instance of a metric's class")
    description: dict[str, Any] = REGISTRY.serialize(metric)
    config = description["config"]
    for argument in _FUNCTIONS.values():
        if callable(config.get(argument)):
            config[argument] = name_of(config[argument])
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
    wanted = name
    if name in _FUNCTIONS:
        argument, kind = _FUNCTIONS[name], _KINDS[name]
        wanted = str(options.get(argument))
        options[argument] = own.get(wanted)
    else:
        kind, options = _kind_of(name, options)
    if wanted not in own and (kind is None or wanted != name):
        raise ValueError(f"metric {wanted!r} is not nbdense's: pass custom_objects={{{wanted!r}: ...}}")
    try:
        metric: Metric = (own.get(name, kind))(**options)
    except TypeError as error:
        raise ValueError(f"metric {name!r}: {options!r} are not its arguments: {error}") from error
    return metric


def _kind_of(name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the class of a name and its arguments; of a former description, what has its values now."""
    arguments, kind = _FORMER.get(name, (None, None))
    if kind is None or set(options) != arguments:
        return _KINDS.get(name), options
    names = {"thresholds": "threshold"}
    return kind, {names.get(key, key): value for key, value in options.items() if key != "num_thresholds"}
