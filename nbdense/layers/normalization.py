"""Common parts of the layers that standardise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nbdense import constraints, initializers, regularizers
from nbdense._checks import finite_float32, finite_number
from nbdense.layers.base import Layer, Shape, describe_given, penalties
from nbdense.layers.forms import Array, CSource, OnnxCall, OnnxGraph, OnnxValue, Tensors, number_of
from nbdense.layers.weights import Weight
from nbdense.network import Row
from nbdense.network.builder import NetworkBuilder

REDUCE_OPSET = 18  # from which ReduceMean takes its axes as an input


class Normalization(Layer):
    """A layer that standardises, then multiplies by gamma and adds beta, where it has them."""

    def __init__(
        self,
        axis: Any,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        name: str | None,
        trainable: bool,
        dtype: Any,
    ) -> None:
        super().__init__(name, trainable, dtype)
        self.axis = single_axis(type(self).__name__, axis)
        self.epsilon = finite_number(type(self).__name__, "epsilon", epsilon, 0, ends="()")
        self.center, self.scale = bool(center), bool(scale)
        self.beta_initializer = initializers.for_layer(beta_initializer)
        self.gamma_initializer = initializers.for_layer(gamma_initializer)

    def set_options(
        self, beta_regularizer: Any, gamma_regularizer: Any, beta_constraint: Any, gamma_constraint: Any
    ) -> None:
        """Set what training does to gamma and beta beside learning."""
        self.beta_regularizer = regularizers.for_layer(beta_regularizer)
        self.gamma_regularizer = regularizers.for_layer(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    @property
    def gamma(self) -> Weight | None:
        """Factor of each column, once it is built; None without one."""
        return self._weight("gamma")

    @property
    def beta(self) -> Weight | None:
        """Term of each column, once it is built; None without one."""
        return self._weight("beta")

    def gamma_and_beta(self, builder: NetworkBuilder, seed: int, number: int) -> tuple[int, int]:
        """Make the parameters; returns their offsets, -1 for one that it does not have."""
        check_is_last(self.name, self.axis, builder.shape)
        offsets = []
        for which, (name, wanted, make) in enumerate(
            [("gamma", self.scale, self.gamma_initializer), ("beta", self.center, self.beta_initializer)]
        ):
            values = make.draw((builder.n,), initializers.generator(seed, 2 * number + which))
            regularizer, constraint = getattr(self, f"{name}_regularizer"), getattr(self, f"{name}_constraint")
            options = {"trainable": self.trainable, "projection": constraint, **penalties(regularizer)}
            known = wanted and builder.parameter(f"{self.name}/{name}", values, **options)
            offsets.append(known if wanted else -1)
        return offsets[0], offsets[1]

    def parameters_for(self, shape: Shape) -> int:
        return shape[-1] * (self.center + self.scale)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"axis": self.axis} if self.axis != -1 else {}
        config |= {"epsilon": self.epsilon, "center": self.center, "scale": self.scale}
        for field in ("beta_initializer", "gamma_initializer"):
            config[field] = initializers.serialize(getattr(self, field))
        return config | super().get_config() | describe_given(self, ("beta", "gamma"))


def single_axis(owner: str, axis: Any) -> int:
    """Return an axis that may be given in a list; raise for numbers that can't be the last axis's."""
    single = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if isinstance(single, bool) or not isinstance(single, int) or (single < 1 and single != -1):
        raise ValueError(f"{owner}: axis must be -1 or the number of the last, got {axis!r}")
    return single


def check_is_last(name: str, axis: int, shape: Shape) -> None:
    """Raise unless an axis is the last of inputs of which a row has this shape."""
    if axis not in (-1, len(shape)):
        raise ValueError(
            f"layer {name!r}: axis must be the last, which is -1 or {len(shape)} for inputs of shape "
            f"(None, {', '.join(map(str, shape))}), got {axis}"
        )


def write_gamma_and_beta(graph: OnnxGraph, row: Row, prefix: str, source: str, target: str) -> None:
    """Write the end of a normalisation: gamma times the standardised tensor plus beta, where the row has them.

    Parameters
    ----------
    graph : OnnxGraph
        The graph that is written.
    row : Row
        The normalisation.
    prefix : str
        The prefix of its tensors' names.
    source, target : str
        The standardised tensor and the result; the same where the row has neither.
    """
    steps = [(operator, name) for operator, name in (("Mul", "gamma"), ("Add", "beta")) if name in row.tensors]
    for operator, name in steps:
        values = finite_float32(row.tensors[name], row.label, name)
        constant = graph.constant(f"{prefix}/{name}", graph.along_columns(values), np.float32)
        after = target if name == steps[-1][1] else f"{prefix}/scaled"
        source = graph.node(operator, [source, constant], after)


def write_norm_in_c(source: CSource, row: Row, label: str, scale: str, centres: bool) -> tuple[str, list[str]]:
    """Write the constants of a normalisation of rows; return its C function and their names.

    Parameters
    ----------
    source : CSource
        The source that is written.
    row : Row
        The row of the network.
    label : str
        What the constants' names end in.
    scale : str
        The row's name of what each column is multiplied by.
    centres : bool
        Whether the mean is taken off.
    """
    tensors = {
        "scale": row.tensors.get(scale, np.ones(row.n_out)),
        "shift": row.tensors.get("beta", np.zeros(row.n_out)),
    }
    arrays = [source.array("float", f"{name}_{label}", value.astype(np.float32)) for name, value in tensors.items()]
    return "float_normalise", [*arrays, source.number(row.settings["epsilon"]), str(int(centres))]


def mean_of_columns(graph: OnnxGraph, prefix: str, source: str, target: str) -> str:
    """Write a mean over the columns; return ``target``.

    Parameters
    ----------
    graph : OnnxGraph
        The graph that is written.
    prefix : str
        The prefix of the normalisation's tensors' names.
    source, target : str
        The tensor, and its means.
    """
    if graph.opset < REDUCE_OPSET:
        return graph.node("ReduceMean", [source], target, axes=[graph.axis], keepdims=1)
    axes = graph.constant(f"{prefix}/axes", [graph.axis], np.int64)
    return graph.node("ReduceMean", [source, axes], target, keepdims=1)


def absorb(tensors: Tensors, mean: Array, scale: Array, shift: Array) -> Tensors:
    """Return the tensors of a normalisation with (x - mean) scale + shift done behind it: gamma and beta take it over.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Those of the normalisation.
    mean, scale, shift : ndarray of float64, (n,)
        Of the columns.
    """
    gamma = tensors.get("gamma", np.ones(len(scale))).astype(np.float64)
    beta = (tensors.get("beta", np.zeros(len(scale))).astype(np.float64) - mean) * scale + shift
    return {**tensors, "gamma": gamma * scale, "beta": beta}


def fit_gamma_and_beta(standard: Array, values: Array) -> Tensors | None:
    """Return the gamma and the beta with which standardised rows become these values; None where there are none.

    Parameters
    ----------
    standard, values : ndarray of float64, (rows, n)
        The rows, and what operators make of them.
    """
    middle = standard - standard.mean(axis=0)
    gamma = (middle * values).sum(axis=0) / (middle**2).sum(axis=0)
    beta = (values - gamma * standard).mean(axis=0)
    away = np.abs(gamma * standard + beta - values)
    fits = (away <= 1e-9 * np.maximum(np.abs(values), 1.0)).all()
    return {"gamma": gamma, "beta": beta} if fits else None


def read_norm_operator(call: OnnxCall, labels: Sequence[str], optional: int = 0) -> tuple[list[Array], float]:
    """Return the vectors and the epsilon of a node that normalises the last axis.

    Parameters
    ----------
    call : OnnxCall
        The node.
    labels : sequence of str
        Names of its vectors, for errors.
    optional : int
        Number of vectors, at the end, that may be left out.
    """
    value = call.data()
    axis = call.attributes.get("axis", -1)
    if not value.shape or axis not in (-1, len(value.seen)):
        raise call.fail(f"it must normalise the last axis alone, got axis {axis}")
    if call.uses_more:
        raise call.fail("other nodes read its mean or deviation; only its first output is supported")
    parts = call.constants(labels, optional=optional)
    if any(part.dtype.kind != "f" or part.size not in (1, value.shape[-1]) for part in parts):
        raise call.fail(f"{' and '.join(labels)} must have {value.shape[-1]} elements each")
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise call.fail(f"epsilon must be above 0, got {epsilon}")
    return [np.broadcast_to(part.reshape(-1), value.shape[-1:]) for part in parts], epsilon


def over_mean_squares(value: OnnxValue) -> Iterator[tuple[OnnxValue, list[OnnxValue], float]]:
    """Yield the ways to read a value as a / sqrt(mean(b c) + epsilon), or a times the reciprocal: (a, [b, c], epsilon).

    Parameters
    ----------
    value : OnnxValue
        The quotient or product.
    """
    if value.operator not in ("Div", "Mul") or len(value.values) != 2:
        return
    one, two = value.values
    for numerator, other in [(one, two)] if value.operator == "Div" else [(one, two), (two, one)]:
        raised = _under_root(other, 0.5) if value.operator == "Div" else _under_inverse_root(other)
        square = None if raised is None else _mean_square(raised)
        if square is not None:
            yield numerator, *square


def _under_root(value: OnnxValue, exponent: float) -> OnnxValue | None:
    """Return the tensor of which a value is that power."""
    if value.operator == "Sqrt" and exponent == 0.5:
        return value.values[0]
    if value.operator == "Pow" and value.inputs[0] is value.values[0] and number_of(value.inputs[1]) == exponent:
        return value.values[0]
    return None


def _under_inverse_root(value: OnnxValue) -> OnnxValue | None:
    """Return the tensor of which a value is one over the root."""
    if value.operator == "Reciprocal":
        return _under_root(value.values[0], 0.5)
    if value.operator == "Div" and len(value.values) == 1 and number_of(value.inputs[0]) == 1.0:
        return _under_root(value.values[0], 0.5)
    return _under_root(value, -0.5)


def _mean_square(raised: OnnxValue) -> tuple[list[OnnxValue], float] | None:
    """Return the factors of the product of which ``raised`` is the mean over the columns, plus epsilon; and epsilon."""
    if raised.operator not in ("Add", "Sum") or len(raised.values) != 1:
        return None
    mean = raised.values[0]
    epsilon = number_of(next(part for part in raised.inputs if part is not mean))
    if epsilon is None or not (0 < epsilon < math.inf) or mean.operator != "ReduceMean":
        return None
    square = mean.values[0]
    if square.operator == "Pow" and number_of(square.inputs[1]) == 2.0:
        return [square.values[0]] * 2, epsilon
    return (list(square.values), epsilon) if square.operator == "Mul" and len(square.values) == 2 else None
