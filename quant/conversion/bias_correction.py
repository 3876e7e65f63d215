"""Bias correction: quantizing moves the mean of a layer's pre-activations, and the bias can take that back.

Method: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2, with
means over calibration data in place of those from batch normalisation.

A layer's quantized pre-activations are X' W' + b, with its input as the quantized layers before give it, X', and its
dequantized kernel W'. Their mean is off by

    E[X'] W' - E[X] W,

which `shift` gives and the bias is to lose. Where X' is not known, E[X] stands for it: the weights' part remains.
Correct layer by layer from the first on, and take X' behind layers that have been corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import DENSE
from nbdense.network import Network
from nbdense.quant.calibration.calibration import batches, walk
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import QuantizedNetwork

Float64 = npt.NDArray[np.float64]
_KEPT = 2**25  # elements of calibration data that wait between layers


class Mean:
    """Means of columns over batches, in float64; threads change no bit.

    Parameters
    ----------
    n : int
        Columns.

    Attributes
    ----------
    rows : int
        How many have been added.
    """

    def __init__(self, n: int) -> None:
        self.rows = 0
        self._sums = np.zeros(n)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Add a batch.

        Parameters
        ----------
        x : ndarray of float, (rows, n)
            As floats: integers are to be dequantized first.
        """
        self._sums += x.sum(axis=0, dtype=np.float64)
        self.rows += x.shape[0]

    def value(self) -> Float64:
        """Return the means, (n,).

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if self.rows == 0:
            raise ValueError("the mean of no rows: add a batch first")
        return self._sums / self.rows


class Carried:
    """Calibration data on its way through a quantized network that is being made, tensor by tensor.

    Each batch waits where it has come to, so that a layer runs once and the whole takes time in proportion to the
    depth; but no more than `_KEPT` elements do. Batches behind them come from the data again for every tensor.

    Parameters
    ----------
    network : Network
        The float network.
    data : array-like, (rows, ...), or batches
        As for `nbdense.quant.calibration.calibration.batches`.
    """

    def __init__(self, network: Network, data: Any) -> None:
        self._network, self._data = network, data
        self._waiting: dict[int, tuple[int, npt.NDArray[np.float32]]] = {}  # tensor and values, by batch
        rows = network.inference
        self._most = _KEPT // int((rows["positions_out"] * rows["n_out"]).max(initial=1))

    def at(
        self, tensor: int, between: Callable[[int, int], QuantizedNetwork], stay: bool
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Yield a tensor's values, batch by batch.

        Parameters
        ----------
        tensor : int
            Number of the tensor: that of the call before, or a later one.
        between : callable
            Gives the network that makes a tensor, its second argument, of an earlier one, its first.
        stay : bool
            Whether everything behind goes through the tensor.

        Yields
        ------
        ndarray of float32, (rows, ...)
        """
        parts: dict[int, QuantizedModel] = {}
        rows = 0
        for number, x in enumerate(batches(self._data, self._network)):
            start, values = self._waiting.get(number, (0, x.astype(np.float32)))
            if start < tensor:
                if start not in parts:
                    parts[start] = QuantizedModel(between(start, tensor))
                values = parts[start].predict(values.reshape(-1, *parts[start].network.input_shape))
            rows += len(x)
            if stay and rows <= self._most:
                self._waiting[number] = tensor, values
            yield values


def shift(
    kernel: npt.NDArray[Any],
    dequantized: npt.NDArray[Any],
    mean: npt.NDArray[Any],
    quantized_mean: npt.NDArray[Any] | None = None,
) -> Float64:
    """Return how far quantization moves the mean of each pre-activation, which the bias is to lose.

    Parameters
    ----------
    kernel : ndarray of float, (n_in, n_out)
        The float weights.
    dequantized : ndarray of float, (n_in, n_out)
        What their integers stand for.
    mean : ndarray of float, (n_in,)
        Mean of the layer's inputs in the float network.
    quantized_mean : ndarray of float, (n_in,), optional
        Mean of the layer's dequantized inputs in the quantized network; by default as ``mean``: then the weights'
        errors count alone.

    Returns
    -------
    ndarray of float64, (n_out,)

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> shift(np.array([[0.9], [2.1]]), np.array([[1.0], [2.0]]), np.array([3.0, 1.0])).round(6)
    array([0.2])
    """
    inputs_mean = mean if quantized_mean is None else quantized_mean
    if np.ndim(kernel) != 2 or np.shape(dequantized) != np.shape(kernel):
        raise ValueError(f"kernels must be matrices of one shape, got {np.shape(kernel)} and {np.shape(dequantized)}")
    for name, value in (("mean", mean), ("quantized_mean", inputs_mean)):
        if np.shape(value) != np.shape(kernel)[:1]:
            raise ValueError(f"{name} must have the shape {np.shape(kernel)[:1]}, got {np.shape(value)}")
    # No BLAS: its sums differ with its threads, and biases are rounded to integers.
    exact, rounded = (
        np.asarray(weights, np.float64) * np.asarray(inputs, np.float64)[:, np.newaxis]
        for weights, inputs in ((kernel, mean), (dequantized, inputs_mean))
    )
    moved: Float64 = (rounded - exact).sum(axis=0)
    return moved


def input_means(network: Network, data: Any) -> dict[int, Float64]:
    """Return the means of every dense row's inputs, from one pass over calibration data.

    Parameters
    ----------
    network : Network
        The float network; or one with dequantized kernels, for the inputs that quantized layers give.
    data : array-like, (rows, ...), or batches
        As for `nbdense.quant.calibration.calibration.batches`.

    Returns
    -------
    dict of int to ndarray of float64, (n_in,)
        By the row's index in ``network.rows()``.

    Raises
    ------
    TypeError, ValueError
        For unfit data.
    """
    means = {row.index: Mean(row.n_in) for row in network.rows() if row.kind is DENSE}
    for _, values in walk(network, data):
        for index, mean in means.items():
            mean.update(values[index].input)
    return {index: mean.value() for index, mean in means.items()}
