"""Steps that compute in floats: functions of the arrays that they read, (rows, columns), to a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.runtime.activations import Function

Array = npt.NDArray[Any]
Step = Callable[..., Array]


def dense(kernel: Array, bias: Array | None, function: Function | None) -> Step:
    """Return the step of a dense layer.

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        Weights.
    bias : ndarray, (n_out,), or None
        Added to the product.
    function : callable or None
        The activation; None: linear.
    """

    def step(x: Array) -> Array:
        z = x @ kernel
        if bias is not None:
            z += bias
        return z if function is None else function(z)

    return step


def activation(function: Function | None) -> Step:
    """Return the step of an activation by itself.

    Parameters
    ----------
    function : callable or None
        The activation; None: linear.
    """
    return (lambda x: x) if function is None else function


def add(first: Array, second: Array) -> Array:
    """Return the sum of two tensors.

    Parameters
    ----------
    first, second : ndarray
        The tensors.
    """
    return first + second


def flatten(positions: int) -> Step:
    """Return the step that lays the positions of a row of data end to end.

    Parameters
    ----------
    positions : int
        Rows of columns in a row of data.
    """
    return lambda x: x.reshape(-1, positions * x.shape[-1])


def batch_norm(tensors: Mapping[str, Array], epsilon: float) -> Step:
    """Return the step of a batch normalisation by its running statistics.

    Parameters
    ----------
    tensors : mapping of str to ndarray, (n,)
        "mean" and "variance", and perhaps "gamma" and "beta".
    epsilon : float
        Added to the variance.
    """
    mean, deviation = tensors["mean"], np.sqrt(tensors["variance"] + tensors["variance"].dtype.type(epsilon))

    def step(x: Array) -> Array:
        return _scaled((x - mean) / deviation, tensors.get("gamma"), tensors.get("beta"))

    return step


def layer_norm(tensors: Mapping[str, Array], epsilon: float) -> Step:
    """Return the step of a layer normalisation.

    Parameters
    ----------
    tensors : mapping of str to ndarray, (n,)
        "gamma" and "beta", where there are these.
    epsilon : float
        Added to the variance.
    """

    def step(x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        return _scaled(centred / _root_mean_square(centred, epsilon), tensors.get("gamma"), tensors.get("beta"))

    return step


def rms_norm(tensors: Mapping[str, Array], epsilon: float) -> Step:
    """Return the step of a root mean square normalisation.

    Parameters
    ----------
    tensors : mapping of str to ndarray, (n,)
        "scale", where there is one.
    epsilon : float
        Added to the mean square.
    """
    return lambda x: _scaled(x / _root_mean_square(x, epsilon), tensors.get("scale"), None)


def _root_mean_square(x: Array, epsilon: float) -> Array:
    root: Array = np.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(epsilon))
    return root


def _scaled(x: Array, gamma: Array | None, beta: Array | None) -> Array:
    if gamma is not None:
        x *= gamma
    if beta is not None:
        x += beta
    return x


NORMS: dict[str, Callable[[Mapping[str, Array], float], Step]] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
}
