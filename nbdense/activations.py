"""Activations: functions of arrays, by name, one of your own, and what files say of them.

Each is an `Activation`: `relu(x, negative_slope=0.1)` applies it to an array, with Keras's arguments and values, and
``Dense(8, activation=relu)`` takes it as well as its name. Those with parameters make others, by
`Activation.with_parameters`.

The rows themselves are in `nbdense.engine.elementwise.activations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from nbdense._registry import Registry
from nbdense._registry import custom_objects as custom_objects
from nbdense._warn import warn
from nbdense.engine.elementwise.activation import ON_DEMAND as ON_DEMAND
from nbdense.engine.elementwise.activation import Activation as Activation
from nbdense.engine.elementwise.activation import Alpha as Alpha
from nbdense.engine.elementwise.activation import json_alpha as json_alpha
from nbdense.engine.elementwise.activations import ACTIVATIONS as ACTIVATIONS

ALIASES = {"swish": "silu", "hard_silu": "hard_swish"}

# What Keras has under these names; a test holds them against the table.
celu = ACTIVATIONS["celu"]
elu = ACTIVATIONS["elu"]
exponential = ACTIVATIONS["exponential"]
gelu = ACTIVATIONS["gelu"]
hard_shrink = ACTIVATIONS["hard_shrink"]
hard_sigmoid = ACTIVATIONS["hard_sigmoid"]
hard_silu = hard_swish = ACTIVATIONS["hard_swish"]
hard_tanh = ACTIVATIONS["hard_tanh"]
leaky_relu = ACTIVATIONS["leaky_relu"]
linear = ACTIVATIONS["linear"]
log_sigmoid = ACTIVATIONS["log_sigmoid"]
log_softmax = ACTIVATIONS["log_softmax"]
mish = ACTIVATIONS["mish"]
relu = ACTIVATIONS["relu"]
relu6 = ACTIVATIONS["relu6"]
selu = ACTIVATIONS["selu"]
sigmoid = ACTIVATIONS["sigmoid"]
silu = swish = ACTIVATIONS["silu"]
soft_shrink = ACTIVATIONS["soft_shrink"]
softmax = ACTIVATIONS["softmax"]
softplus = ACTIVATIONS["softplus"]
softsign = ACTIVATIONS["softsign"]
sparse_plus = ACTIVATIONS["sparse_plus"]
sparse_sigmoid = ACTIVATIONS["sparse_sigmoid"]
squareplus = ACTIVATIONS["squareplus"]
tanh = ACTIVATIONS["tanh"]
tanh_shrink = ACTIVATIONS["tanh_shrink"]
threshold = ACTIVATIONS["threshold"]


def __getattr__(name: str) -> Any:
    if name in _REFUSED:
        raise AttributeError(f"nbdense.activations has no {name}: {_REFUSED[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_REFUSED = {
    "glu": "it halves the columns, which no dense layer's activation does",
    "sparsemax": "end with 'softmax', or 'sparse_sigmoid' for each output by itself",
}


def _describe(activation: Activation) -> str | dict[str, Any]:
    if activation.alpha != ACTIVATIONS[activation.name].alpha:
        return {"name": activation.name, "alpha": json_alpha(activation.alpha)}
    return activation.name


REGISTRY: Registry[Activation] = Registry(
    "activation",
    Activation,
    ACTIVATIONS,
    ALIASES,
    hint="; activations.custom makes others",
    describe=_describe,
    is_custom=lambda activation: activation.own,
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
        parameters = {key: value for key, value in identifier.items() if key != "name"}
        if "name" not in identifier or not all(isinstance(key, str) for key in parameters):
            raise ValueError(f"an activation's description is {{'name': ..., parameter: ...}}, got {identifier!r}")
        row = get(identifier["name"])
        if set(parameters) == {"alpha"}:
            return row if parameters["alpha"] is None else row.with_alpha(parameters["alpha"])
        return row.with_parameters(**parameters)
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
    return Activation(name, ON_DEMAND, forward, derivative, False, "", own=True, write_onnx=onnx)


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
