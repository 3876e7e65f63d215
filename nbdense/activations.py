"""Activations by name: a table's row, one of your own, and what files say of them.

The rows themselves are in `nbdense.engine.elementwise.activations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from nbdense._registry import Registry
from nbdense._registry import custom_objects as custom_objects
from nbdense._warn import warn
from nbdense.engine.elementwise.activations import ACTIVATIONS as ACTIVATIONS
from nbdense.engine.elementwise.activations import CUSTOM as CUSTOM
from nbdense.engine.elementwise.activations import Activation as Activation

ALIASES = {"swish": "silu", "hard_silu": "hard_swish"}


def _describe(activation: Activation) -> str | dict[str, Any]:
    if activation.alpha != ACTIVATIONS[activation.name].alpha:
        return {"name": activation.name, "alpha": activation.alpha}
    return activation.name


REGISTRY: Registry[Activation] = Registry(
    "activation",
    Activation,
    ACTIVATIONS,
    ALIASES,
    hint="; activations.custom makes others",
    describe=_describe,
    is_custom=lambda activation: activation.code >= CUSTOM,
)


def serialize(activation: Activation) -> Any:
    """Describe an activation so that `get` makes the same again.

    Parameters
    ----------
    activation : Activation
        The activation.

    Returns
    -------
    str or dict
        Its name; with a parameter that is not the table's {"name": ..., "alpha": ...}; one's own {"custom": name}.
    """
    return REGISTRY.serialize(activation)


def get(identifier: Any) -> Activation:
    """Return the activation that an identifier names, describes or is; None is linear, as in Keras.

    Parameters
    ----------
    identifier : str, dict, Activation, activation layer or None
        A name or alias; what `serialize` gave, where a custom one is looked for in `custom_objects`; a layer such as
        ``nbdense.layers.LeakyReLU(0.1)``, for its activation.

    Raises
    ------
    ValueError
        If there is no such activation, or its parameter cannot be.
    """
    if identifier is None:
        return ACTIVATIONS["linear"]
    if isinstance(identifier, Mapping) and set(identifier) != {"custom"}:
        if not {"name"} <= set(identifier) <= {"name", "alpha"}:
            raise ValueError(f"an activation's description is {{'name': ..., 'alpha': ...}}, got {identifier!r}")
        row, alpha = get(identifier["name"]), identifier.get("alpha")
        return row if alpha is None else row.with_alpha(alpha)
    inner = getattr(identifier, "activation", None)
    is_layer = isinstance(inner, Activation) and not hasattr(identifier, "units")  # a Dense is more than its activation
    return REGISTRY.get(inner if is_layer else identifier)


# Where a custom derivative is held against its function: no kink of the usual functions is near one.
_POINTS = (-4.3, -2.1, -0.7, -0.13, 0.17, 0.6, 1.9, 4.7)
_STEP = 1e-5


def custom(
    name: str,
    forward: Callable[[Any], Any],
    derivative: Callable[[Any], Any],
    *,
    onnx: Callable[[Any, str, str], Any] | None = None,
) -> Activation:
    """Make an activation of one's own from two scalar functions.

    They are compiled when a model with them is built, in every process anew. Files hold the name alone: give the
    activation as ``custom_objects={name: activation}`` to load one.

    Parameters
    ----------
    name : str
        Unlike those in `ACTIVATIONS`; in one model, no two may share it.
    forward : callable
        forward(z), a number from a number, written as numba can compile it (``math`` and ``numpy`` functions are fine).
        It must depend on nothing else: results are the same with any number of threads only then.
    derivative : callable
        derivative(z), the derivative of forward at z.
    onnx : callable, optional
        onnx(graph, source, target), which writes the activation for `nbdense.to_onnx`: nodes that compute the tensor
        named ``target`` of the one named ``source``, by ``graph.node(operator, inputs, output, **attributes)`` and
        ``graph.constant(name, value, dtype)``, both of which return the tensor's name. Names begin with ``target``.

    Returns
    -------
    Activation
        For any ``activation=`` argument.

    Raises
    ------
    ValueError
        If the name is taken, or a function gives no number for a number.

    Warns
    -----
    UserWarning
        If central differences of forward do not agree with the derivative.

    Examples
    --------
    >>> import math
    >>> from nbdense import activations
    >>> sine = activations.custom("sine", lambda z: math.sin(z), lambda z: math.cos(z))
    >>> activations.serialize(sine)
    {'custom': 'sine'}
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"custom activation: name must be a string, got {name!r}")
    if name in REGISTRY:
        raise ValueError(f"custom activation: {name!r} is the name of one that is there already; choose another")
    for role, function in (("forward", forward), ("derivative", derivative)):
        if not callable(function):
            raise ValueError(f"activation {name!r}: {role} must be a function of one number, got {function!r}")
    if onnx is not None and not callable(onnx):
        raise ValueError(f"activation {name!r}: onnx must be a function of (graph, source, target), got {onnx!r}")
    _check_derivative(name, forward, derivative)
    return Activation(name, CUSTOM, forward, derivative, False, "", write_onnx=onnx)


def _check_derivative(name: str, forward: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> None:
    """Warn where central differences of forward do not agree with the derivative."""
    for z in _POINTS:
        low, high = (_number(name, "forward", forward, z + step) for step in (-_STEP, _STEP))
        slope = _number(name, "derivative", derivative, z)
        expected = (high - low) / (2.0 * _STEP)
        if math.isfinite(expected) and not abs(slope - expected) <= 1e-3 * max(1.0, abs(expected)):
            warn(
                f"activation {name!r}: derivative({z}) is {slope:.6g}, but forward changes there by {expected:.6g}; "
                "training would follow a wrong gradient"
            )
            break


def _number(name: str, role: str, function: Callable[[Any], Any], z: float) -> float:
    """Call a user's function in plain Python; NaN where it is not defined, as compiled it would be."""
    try:
        return float(getattr(function, "py_func", function)(z))
    except ArithmeticError:
        return math.nan
    except Exception as error:
        if isinstance(error, ValueError) and "math domain error" in str(error):
            return math.nan
        raise ValueError(f"activation {name!r}: {role}({z}) must return a number: {error}") from error
