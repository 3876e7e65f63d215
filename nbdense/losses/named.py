"""Losses by name: Keras's, as classes and as functions, and one's own.

A loss is the quantity it is named after, a number for each row; a batch's loss is the sum over its rows, each times
its weight, divided by the batch's size (Keras's ``sum_over_batch_size``). Where the outputs have positions, each
position is such a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nbdense._registry import Registry, class_and_config, custom_objects
from nbdense.losses.base import CustomLoss, FunctionLoss, Loss, NamedLoss, check_derivative
from nbdense.losses.margins import CategoricalHinge, Dice, Hinge, SquaredHinge, Tversky
from nbdense.losses.probabilities import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
)
from nbdense.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Quantile,
)


def custom(name: str, value: Callable[[Any, Any], Any], derivative: Callable[[Any, Any], Any]) -> Loss:
    """Make a loss of one's own: the mean over the columns of a scalar function, as `MeanSquaredError` is.

    Parameters
    ----------
    name : str
        Name of the loss. Files keep the name only: whoever loads one brings the loss by ``custom_objects``.
    value : callable
        ``value(y, t)``: an output's share in the loss, of output and target; a number. Numba compiles it, for
        numbers of the model's dtype.
    derivative : callable
        ``derivative(y, t)``: the derivative of ``value`` by ``y``.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError, TypeError
        For a name that is taken, or what is not a function of two numbers that returns one. That numba cannot compile
        it is a ValueError of `fit`.

    Warns
    -----
    UserWarning
        If ``derivative`` is not ``value``'s, by central differences at a few points.

    Examples
    --------
    >>> from nbdense.losses import custom
    >>> def value(y, t):
    ...     return (y - t) ** 4
    >>> def derivative(y, t):
    ...     return 4 * (y - t) ** 3
    >>> custom("quartic", value, derivative).name
    'quartic'
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"custom: name must be a string, got {name!r}")
    if name in REGISTRY:
        raise ValueError(f"custom: {name!r} is a loss already; take another name")
    for role, function in (("value", value), ("derivative", derivative)):
        if not callable(function):
            raise TypeError(f"custom: {role} must be a function of (output, target), got {type(function).__name__}")
    check_derivative(name, value, derivative)
    return CustomLoss(name=name, value=value, derivative=derivative)


_ROWS: dict[str, type[NamedLoss]] = {
    kind.kind: kind
    for kind in (
        *(MeanSquaredError, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredLogarithmicError),
        *(Huber, LogCosh, Quantile, CosineSimilarity, Poisson, KLDivergence),
        *(BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, CategoricalFocalCrossentropy),
        *(SparseCategoricalCrossentropy, CategoricalGeneralizedCrossEntropy),
        *(Hinge, SquaredHinge, CategoricalHinge, Dice, Tversky),
    )
}
_ALIASES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "logcosh": "log_cosh",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
}
LOSSES: dict[str, type[NamedLoss]] = {**_ROWS, **{alias: _ROWS[name] for alias, name in _ALIASES.items()}}


def _from_function(function: Callable[[Any, Any], Any]) -> Loss:
    """Return the loss that a function stands for: the library's own have classes."""
    kind = _ROWS.get(getattr(function, "__name__", ""))
    return kind() if kind is not None and kind.function is function else FunctionLoss(function)


REGISTRY: Registry[Loss] = Registry(
    "loss",
    Loss,
    _ROWS,
    _ALIASES,
    spelling=lambda name: name.lower() if name.isupper() else name,
    hint="; a function of (y_true, y_pred) written with NumPy is one too, and losses.custom(name, value, derivative); "
    "files name one's own, and custom_objects brings them",
    describe=class_and_config,
    is_custom=lambda loss: isinstance(loss, CustomLoss | FunctionLoss),
    from_function=_from_function,
)


def serialize(loss: Any) -> Any:
    """Describe a loss so that `get` makes the same again: JSON-able.

    Parameters
    ----------
    loss : Loss, or what `get` takes
        A function of the library is described by its name, a function or custom loss of one's own by {"custom": name},
        and any other by {"class_name": ..., "config": ...}.
    """
    if not isinstance(loss, Loss) and callable(loss):
        named = _from_function(loss)
        if isinstance(named, NamedLoss):
            return named.kind
    return REGISTRY.serialize(loss)


def deserialize(name: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return what `serialize` described.

    Parameters
    ----------
    name : str or mapping
        The description.
    custom_objects : mapping of str to object, optional
        Losses, their classes and functions of one's own by name.
    """
    with _objects(custom_objects):
        return get(name)


_objects = custom_objects  # whose name is an argument above


def get(identifier: Any) -> Any:
    """Return the loss that an identifier names, describes or is, as Keras does; `for_training` makes a Loss of it.

    Parameters
    ----------
    identifier : None, str, mapping, Loss, class of Loss, or callable
        The name of a function ("mse", "mean_squared_error"), which is returned; of a class ("MeanSquaredError"), for
        its object with the defaults, as for a class; what `serialize` returned, or Keras's {"class_name": ...,
        "config": ...}. A function, an object and None are returned as they are.

    Raises
    ------
    ValueError
        If there is no such loss, or it has no such options.

    Examples
    --------
    >>> from nbdense import losses
    >>> losses.get("mse") is losses.mean_squared_error
    True
    >>> losses.get("Huber")
    Huber(delta=1.0)
    """
    if identifier is None or (callable(identifier) and not isinstance(identifier, type)):
        return identifier
    if isinstance(identifier, str):
        row = REGISTRY.find(identifier)
        named = isinstance(row, type) and issubclass(row, NamedLoss) and identifier != row.__name__
        if named or (callable(row) and not isinstance(row, type)):
            return row.function if named else row
    return REGISTRY.get(identifier)


def for_training(identifier: Any) -> Loss:
    """Return the Loss that a model can learn by.

    Parameters
    ----------
    identifier : str, mapping, Loss, class of Loss, or callable
        What `get` takes; a function of (y_true, y_pred) is recorded.

    Raises
    ------
    ValueError
        If there is no such loss, or it cannot be compiled.
    """
    loss = REGISTRY.get(identifier)
    loss.check_trainable()
    return loss
