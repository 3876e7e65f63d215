"""Loss and metrics of a model that does not learn: those that its float model was compiled with, or others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy.typing as npt

from nbdense import losses, metrics
from nbdense.files import FileFormatError
from nbdense.training import targets

LISTS = ("metrics", "weighted_metrics")

Compiled = Mapping[str, Any]  # a loss, and lists of metrics: objects, names or what files say of them


def compiled_of(model: Any) -> dict[str, Any]:
    """Return the loss and the metrics that a model was compiled with; nothing of one that was not.

    Parameters
    ----------
    model : Sequential, QuantizedModel or Network
        The model.
    """
    state = getattr(model, "train_state", None)
    if state is None:
        return dict(getattr(model, "compiled", {}))
    return {} if state.loss is None else {"loss": state.loss, **{name: list(getattr(state, name)) for name in LISTS}}


def loss_of(compiled: Compiled) -> losses.Loss | None:
    """Return the loss that a model was compiled with; None of one that was not, or of a file that only names it.

    Parameters
    ----------
    compiled : mapping
        What `compiled_of` or `read_compiled` returned.
    """
    loss = compiled.get("loss")
    return None if loss is None or isinstance(loss, Mapping) else losses.for_training(loss)


def describe_compiled(compiled: Compiled) -> dict[str, Any]:
    """Describe a loss and metrics in JSON's types, for a file.

    Parameters
    ----------
    compiled : mapping
        What `compiled_of` returned.
    """
    if not compiled:
        return {}
    listed = {name: [metrics.serialize(metric) for metric in compiled[name]] for name in LISTS}
    loss = compiled["loss"]
    return {"loss": loss if isinstance(loss, Mapping) else losses.serialize(loss), **listed}


def read_compiled(path: Any, config: Any) -> dict[str, Any]:
    """Make the loss and the metrics of a file; what custom_objects would have to bring stays described.

    Parameters
    ----------
    path : path
        The file, for errors.
    config : mapping
        What `describe_compiled` returned.

    Raises
    ------
    FileFormatError
        If it is no description.
    """
    if not config:
        return {}

    def made(make: Callable[[Any], Any], description: Any) -> Any:
        with suppress(ValueError):  # somebody's own: the model predicts without it, and `evaluate` says what is missing
            return make(description)
        return description

    try:
        listed = {name: [made(metrics.deserialize, metric) for metric in config[name]] for name in LISTS}
        return {"loss": made(losses.get, config["loss"]), **listed}
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path}: its loss or metrics cannot be made: {error}") from error


def score(
    compiled: Compiled,
    outputs: npt.NDArray[Any],
    y: Any,
    sample_weight: Any,
    last: str,
) -> dict[str, Any]:
    """Return loss and metrics of outputs by name, without penalties on weights.

    Parameters
    ----------
    compiled : mapping
        The loss, and the metrics.
    outputs : ndarray, (rows, ..., n_out)
        What the model predicts.
    y : array-like
        Targets, as the float model's `evaluate` takes them.
    sample_weight : array-like, (rows,), or None
        A weight for each row: of the loss, and of weighted metrics.
    last : str
        The last layer's name, for errors.

    Raises
    ------
    TypeError, ValueError
        If the targets do not fit the loss, or a metric does not.
    """
    loss = losses.for_training(compiled["loss"])
    rows, shape = len(outputs), outputs.shape[1:]
    if rows == 0:
        raise ValueError("x: the data set is empty")
    wanted = targets.check_targets(y, loss, rows, shape, last)
    weights = targets.row_weights(sample_weight, None, wanted, loss)
    outputs = outputs.reshape(-1, shape[-1])
    positions = len(outputs) // rows
    wanted = wanted.reshape(len(outputs), -1)
    by_row = None if weights is None else weights[:, 0].repeat(positions)
    results: dict[str, Any] = {"loss": float(loss(wanted, outputs, by_row))}
    for metric in metrics.get_all(compiled["metrics"], loss, shape[-1], compiled["weighted_metrics"]):
        counting = metric.fresh()  # the object itself is the user's
        counting.update_state(wanted, outputs, by_row if metric.weighted else None)
        value = counting.result()
        results |= value if isinstance(value, dict) else {metric.name: value}
    return results
