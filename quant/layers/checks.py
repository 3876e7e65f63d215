"""Limits of the numbers of a quantized network, and checks of its layers' parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._registry import find_custom
from nbdense.activations import ACTIVATIONS, Activation, Alpha
from nbdense.runtime.rounding import ROUNDINGS as ROUNDINGS
from nbdense.runtime.rounding import clamp_of

LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}  # of each activation dtype
WEIGHT_LIMITS = {8: 127, 4: 7}  # by bits, of what `quantize` makes: weights symmetric about 0
WEIGHT_LIMIT = WEIGHT_LIMITS[8]
GRANULARITIES = ("per_channel", "per_tensor")
INT32_MAX = 2**31 - 1


def activation_of(name: str, alpha: Alpha) -> Activation:
    """Return the activation of that name, with a parameter where it has one.

    Parameters
    ----------
    name : str
        Name in ``nbdense.activations.ACTIVATIONS``; else among the custom objects that are given at the moment.
    alpha : float or sequence of float
        The parameter; all of them where there are several.

    Raises
    ------
    ValueError
        If there is none, or the parameter does not fit.
    """
    if name not in ACTIVATIONS:
        custom: Activation = find_custom("activation", name, Activation)
        return custom
    row = ACTIVATIONS[name]
    return row.with_alpha(alpha) if row.parameters else row


def clamp_limits(row: Activation, scale: float, zero_point: int, dtype: str, rounding: str) -> tuple[int, int]:
    """Return the least and greatest integers that a clamp leaves possible.

    Parameters
    ----------
    row : Activation
        The clamp.
    scale, zero_point : float, int
        Scale and zero point of the integers.
    dtype : str
        Theirs: "int8" or "uint8".
    rounding : str
        Rounding of bounds that are not whole: "onnx" half to even, the others half away from zero.
    """
    low, high = LIMITS[dtype]
    least, most = np.clip(np.array(clamp_of((row.lower, row.upper), scale, rounding)) + zero_point, low, high)
    return int(least), int(most)


def one_of(what: str, value: Any, allowed: Any) -> None:
    """Refuse a value that is not among those allowed.

    Parameters
    ----------
    what : str
        What it is, for the error.
    value : object
        The value.
    allowed : iterable
        What it may be.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_kernel(layer: Any, where: str) -> None:
    """Refuse a kernel that is no matrix of int8, scales or zero points of another shape, or what its bits do not hold.

    Parameters
    ----------
    layer : layer
        A layer with ``kernel``, ``kernel_scales``, their shape ``scales_shape``, ``kernel_zero_points`` and ``bits``.
    where : str
        What the error begins with.
    """
    kernel = layer.kernel
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(f"{where}kernel must be two-dimensional and not empty, got shape {kernel.shape}")
    check_columns(kernel, kernel.shape, np.int8, f"{where}kernel")
    one_of(f"{where}bits", layer.bits, WEIGHT_LIMITS)
    check_columns(layer.kernel_scales, layer.scales_shape, np.float32, f"{where}kernel_scales")
    parts = {"a weight": kernel}
    if layer.kernel_zero_points is not None:
        parts["a kernel zero point"] = layer.kernel_zero_points
        check_columns(layer.kernel_zero_points, layer.scales_shape, np.int8, f"{where}kernel_zero_points")
    low, high = -(2 ** (layer.bits - 1)), 2 ** (layer.bits - 1) - 1
    for number, part in parts.items():
        least, most = int(part.min()), int(part.max())
        if least < low or most > high:
            raise ValueError(
                f"{where}{number} must lie in [{low}, {high}], {layer.bits} bits, got {least if least < low else most}"
            )


def check_accumulator(least: int, most: int, layer: Any, where: str) -> None:
    """Refuse an accumulator that can leave int32.

    Parameters
    ----------
    least, most : int
        The ends of what it can be.
    layer : layer
        A layer with ``weights`` and ``n_in``.
    where : str
        What the error begins with.
    """
    if most > INT32_MAX or least < -INT32_MAX - 1:
        largest = int(np.abs(layer.weights().astype(np.int32)).max())
        raise ValueError(
            f"{where}with {layer.n_in:,} inputs its accumulator can leave int32 (where all weights are as large as its "
            f"largest, {largest}, more than {INT32_MAX // (255 * largest):,} inputs can)"
        )


def check_columns(array: Any, shape: tuple[int, ...], kind: Any, what: str) -> None:
    """Refuse an array of another dtype or shape.

    Parameters
    ----------
    array : ndarray
        The array.
    shape : tuple of int
        Shape that it must have.
    kind : dtype
        Type that it must have.
    what : str
        What it is, for the error.
    """
    if array.dtype != kind or array.shape != shape:
        raise ValueError(f"{what} must be {np.dtype(kind)} {shape}, got {array.dtype} {array.shape}")


def check_scales(scales: npt.NDArray[np.float32], where: str) -> None:
    """Refuse scales that are not positive and finite.

    Parameters
    ----------
    scales : ndarray of float32
        Scales of weights.
    where : str
        What the error begins with.
    """
    if not ((scales > 0) & (scales < np.inf)).all():
        raise ValueError(f"{where}kernel_scales must be positive and finite")


def check_granularity(layer: Any, where: str) -> None:
    """Refuse an unknown granularity, or a kernel "per_tensor" whose columns differ in scale or zero point.

    Parameters
    ----------
    layer : layer
        A layer with ``granularity``, ``kernel_scales`` and ``kernel_zero_points``.
    where : str
        What the error begins with.
    """
    one_of(f"{where}granularity", layer.granularity, GRANULARITIES)
    for name in ("kernel_scales", "kernel_zero_points"):
        part = getattr(layer, name)
        if layer.granularity == "per_tensor" and part is not None and (part != part[0]).any():
            raise ValueError(f"{where}{name} must be equal where granularity is per_tensor")


def check_table(layer: Any, dtype: str, where: str) -> None:
    """Refuse a table of another dtype or shape, or the lack of one that an activation needs.

    Parameters
    ----------
    layer : layer
        A layer with ``table`` and ``activation``.
    dtype : str
        The network's activation dtype.
    where : str
        What the error begins with.
    """
    if layer.table is None:
        if layer.activation == "softmax":
            raise ValueError(f"{where}softmax is the network's final_activation, not a layer's")
        if layer.activation not in ACTIVATIONS or not ACTIVATIONS[layer.activation].is_clamp:
            raise ValueError(f"{where}activation {layer.activation!r} needs a table")
    else:
        check_columns(layer.table, (256,), np.dtype(dtype), f"{where}table")
    if layer.activation in ACTIVATIONS:
        try:
            _ = layer.function
        except ValueError as error:
            raise ValueError(f"{where}{error}") from error


def check_format(scale: float, zero_point: int, dtype: str, where: str, what: str) -> None:
    """Refuse a scale that is no positive float32 number, or a zero point outside its type.

    Parameters
    ----------
    scale, zero_point : float, int
        Scale and zero point of a tensor.
    dtype : str
        The network's activation dtype.
    where : str
        What the error begins with.
    what : str
        The tensor's part in the layer, such as "input".
    """
    low, high = LIMITS[dtype]
    if not (0 < scale < np.inf and float(np.float32(scale)) == scale):
        raise ValueError(f"{where}{what}_scale must be a positive float32 number, got {scale!r}")
    if not low <= zero_point <= high:
        raise ValueError(f"{where}{what}_zero_point must lie in [{low}, {high}], got {zero_point}")
