"""Scales, zero points and tables of activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.network import Row
from nbdense.quant.layers.base import Range
from nbdense.quant.layers.checks import LIMITS

# TFLite's int8 specification: what these give has one scale, and the zero point of (int8, uint8) beside it.
FIXED_OUTPUTS: dict[str, tuple[float, dict[str, int]]] = {
    "sigmoid": (1 / 256, {"int8": -128, "uint8": 0}),
    "tanh": (1 / 128, {"int8": 0, "uint8": 128}),
}
_SMALLEST = float(np.finfo(np.float32).tiny)  # the least scale that has all its digits

Parameters = tuple[float, int]


def is_clamp(activation: Activation) -> bool:
    """Tell whether an activation is no more than a clamp, or nothing at all: others are observed before and after.

    Parameters
    ----------
    activation : Activation
        A row of the table.
    """
    return activation.is_clamp


def activation_parameters(bounds: Range, dtype: str, symmetric: bool = False) -> Parameters:
    """Return scale and zero point for values within bounds, which are first widened to hold 0.

    Parameters
    ----------
    bounds : (float, float)
        Least and greatest value. Where both are 0 (dead units, constant data) nothing is known: [0, 1] is taken.
    dtype : str
        "int8" or "uint8".
    symmetric : bool
        Whether the zero point is to be the type's middle (0, or 128), with as much room on both sides of it.

    Returns
    -------
    (float, int)
        The scale, a float32 number, and the zero point.
    """
    least, most = LIMITS[dtype]
    low, high = min(float(np.float32(bounds[0])), 0.0), max(float(np.float32(bounds[1])), 0.0)
    if symmetric:
        middle = most - 127
        scale = float(np.float32(max(-low, high) / 127))
        return (scale if scale >= _SMALLEST else float(np.float32(1 / 127))), middle
    scale = float(np.float32((high - low) / (most - least)))
    if scale < _SMALLEST:
        low, scale = 0.0, float(np.float32(1 / (most - least)))
    return scale, int(np.clip(np.rint(least - low / scale), least, most))


def table_parameters(
    row: Row, pre: Range, output: Range, dtype: str, symmetric: bool = False, settled: bool = False
) -> tuple[Parameters, Parameters]:
    """Return scales and zero points before and behind an activation that becomes a table.

    Parameters
    ----------
    row : Row
        The row of the activation and its parameter.
    pre, output : (float, float)
        What was calibrated.
    dtype : str
        "int8" or "uint8".
    symmetric : bool
        As in `activation_parameters`; fixed outputs stay as they are.
    settled : bool
        Whether ``pre`` is what training has rounded to, and is not to be cut (see `without_flat_ends`).
    """
    name = row.activation.name
    if name in FIXED_OUTPUTS:
        after = FIXED_OUTPUTS[name][0], FIXED_OUTPUTS[name][1][dtype]
    else:
        after = activation_parameters(output, dtype, symmetric)
    bounds = pre if settled else without_flat_ends(row, pre, after, dtype)
    return activation_parameters(bounds, dtype, symmetric), after


def activation_table(row: Row, before: Parameters, after: Parameters, dtype: str) -> npt.NDArray[Any]:
    """Tabulate an activation: for each of the 256 integers before it, the integer after it.

    Parameters
    ----------
    row : Row
        The layer, of which the activation and its parameter count.
    before, after : (float, int)
        Scale and zero point of the table's index and of its entries.
    dtype : str
        "int8" or "uint8".

    Raises
    ------
    ValueError
        If an entry is NaN: of a custom activation, say.
    """
    try:
        return tabulated(row.activation, before, after, dtype)
    except ValueError as error:
        raise ValueError(f"{row.label}: {error}") from error


def tabulated(activation: Activation, before: Parameters, after: Parameters, dtype: str) -> npt.NDArray[Any]:
    """Tabulate an activation, of whichever layer: see `activation_table`.

    Parameters
    ----------
    activation : Activation
        With its parameters.
    before, after : (float, int)
        Scale and zero point of the table's index and of its entries.
    dtype : str
        "int8" or "uint8".

    Raises
    ------
    ValueError
        If an entry is NaN.
    """
    least, most = LIMITS[dtype]
    z = (np.arange(least, most + 1) - before[1]).astype(np.float32) * np.float32(before[0])
    values = _apply(activation, z)
    if np.isnan(values).any():
        raise ValueError(f"its activation gives NaN for {z[np.isnan(values)][0]:g}")
    return _to_integers(values, after, dtype)


def _apply(activation: Activation, z: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return activation.applied(z.astype(np.float64)[np.newaxis])[0]


def _to_integers(values: npt.NDArray[np.float64], parameters: Parameters, dtype: str) -> npt.NDArray[Any]:
    steps = np.rint(values.astype(np.float32) / np.float32(parameters[0])).astype(np.float64)
    return np.clip(steps + parameters[1], *LIMITS[dtype]).astype(dtype)


def without_flat_ends(row: Row, bounds: Range, after: Parameters, dtype: str) -> Range:
    """Cut off the ends of bounds on which the activation's integers no longer change: the rest has finer steps.

    Parameters
    ----------
    row : Row
        The row of the activation and its parameter.
    bounds : (float, float)
        Bounds of the activation's input.
    after : (float, int)
        Scale and zero point of its output.
    dtype : str
        "int8" or "uint8".
    """
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    width = np.inf
    while 0.9 * width > high - low > 0:
        width = high - low
        z = np.linspace(low, high, 1024)
        entries = _to_integers(_apply(row.activation, z), after, dtype)
        first, last = (np.flatnonzero(entries != end) for end in (entries[0], entries[-1]))
        if first.size == 0:
            break
        low, high = min(z[first[0] - 1], 0.0), max(z[last[-1] + 1], 0.0)
    return float(low), float(high)


def exponentials(scale: float) -> npt.NDArray[np.int32]:
    """Tabulate exp for `QuantizedSoftmax`: round(2**23 exp(-d scale)) for d from 0 to 255.

    Parameters
    ----------
    scale : float
        Scale of the logits.
    """
    with np.errstate(under="ignore"):
        return np.rint(2.0**23 * np.exp(-np.arange(256) * scale)).astype(np.int32)
