"""Calibration: a float network's tensors over data that streams through it, and the ranges that they take.

The engine's own kernels run the network, because BLAS sums differ with its threads. `walk` shows every row's tensors
batch by batch, for whatever wants to look at them; `calibrate` keeps an observer for each
(`nbdense.quant.calibration.observers`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, backends
from nbdense.backends.base import NOTHING, Data, Workspace
from nbdense.engine.rows import ACTIVATION, DENSE
from nbdense.network import Network, Row
from nbdense.quant.calibration import observers
from nbdense.quant.layers.activations import is_clamp
from nbdense.quant.layers.base import Range
from nbdense.training import phases

BATCH = 512  # rows at a time, at most
_ELEMENTS = 2**22  # of all tensors of these rows together

Matrix = npt.NDArray[Any]


@dataclass(frozen=True)
class Ranges:
    """Ranges of a network's tensors; those of rows are in the order of ``network.rows()``.

    Attributes
    ----------
    input : (float, float)
        Range of the network's input.
    pre : list of (float, float)
        Range of each row's values after its clamp, if it has one, but before any other activation; of an activation's
        row, of its input.
    output : list of (float, float)
        Range of each row's output.
    """

    input: Range
    pre: list[Range]
    output: list[Range]


@dataclass(frozen=True)
class RowValues:
    """The tensors of one row of a network for a batch: unpadded views that last until the next batch.

    Attributes
    ----------
    input : ndarray, (rows * positions, n_in)
    second : ndarray, (rows * positions, n_in), or None
        The other input of a sum.
    pre : ndarray, (rows * positions, n_out)
        Before the activation, but after its clamp, if that is what it is; of an activation's row, its input.
    output : ndarray, (rows * positions_out, n_out)
    """

    input: Matrix
    second: Matrix | None
    pre: Matrix
    output: Matrix


def calibrate(
    network: Network,
    data: Any,
    method: str = "minmax",
    *,
    percentile: float = observers.PERCENTILE,
    levels: int = observers.LEVELS,
) -> Ranges:
    """Find the range of every tensor of a network, in one pass over calibration data.

    Parameters
    ----------
    network : Network
        The float network.
    data : array-like, (rows, ...), or batches
        See `batches`. How rows are cut into batches makes no difference, nor does the number of threads.
    method : str
        "minmax": all values. "percentile": all but the largest magnitudes. "mse": the least mean squared error of
        ``levels`` integers. "entropy": the least information lost (Migacz, 2017). See `nbdense.quant.calibration`.
    percentile : float
        The share, in percent, of values other than 0 that "percentile" keeps.
    levels : int
        How many integers "mse" and "entropy" count on.

    Returns
    -------
    Ranges
        Finite, with low <= high: both are the value of a tensor that is constant.

    Raises
    ------
    TypeError, ValueError
        For an unknown method, unfit data (see `batches`), or if a layer's outputs are not finite.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((2,)), Dense(3, "relu")])
    >>> calibrate(model.network, [[0.0, -1.0], [3.0, 2.0]]).input
    (-1.0, 3.0)
    """
    make = observers.maker(method, percentile, levels)
    rows = list(network.rows())
    seen = {buffer: make() for buffer in [0, *(row.output for row in rows)]}
    unclamped = {row.index: make() for row in rows if row.kind is DENSE and not is_clamp(row.activation)}
    for x, values in walk(network, data):
        seen[0].update(x)
        for row, value in zip(rows, values, strict=True):
            try:
                if row.index in unclamped:
                    unclamped[row.index].update(value.pre)
                seen[row.output].update(value.output)
            except observers.NotFiniteError:
                raise ValueError(f"{row.label}: its outputs for the calibration data are not finite") from None
    output = {buffer: observer.range() for buffer, observer in seen.items()}
    inputs = [output[row.input if row.kind is ACTIVATION else row.output] for row in rows]
    pre = [
        unclamped[row.index].range() if row.index in unclamped else bounds
        for row, bounds in zip(rows, inputs, strict=True)
    ]
    return Ranges(output[0], pre, [output[row.output] for row in rows])


def walk(network: Network, data: Any) -> Iterator[tuple[Matrix, list[RowValues]]]:
    """Run data through a network, a few hundred rows at a time, and show what every row takes and gives.

    Parameters
    ----------
    network : Network
        The float network, as it predicts: without dropout, norms by their running statistics.
    data : array-like, (rows, ...), or batches
        See `batches`.

    Yields
    ------
    x : ndarray, (rows, n_in)
        The batch, in the network's dtype.
    values : list of RowValues
        One for each of ``network.rows()``.

    Raises
    ------
    TypeError, ValueError
        For unfit data.
    """
    layers, width = _keeping_pre(network)
    pairs = list(zip(layers, network.rows(), strict=True))
    wide = dataclasses.replace(network, layers=network.layers.copy(), width=width)
    table, nothing = phases.forward(layers), _checks.no_source()
    workspace: Workspace | None = None
    for x in batches(data, network):
        rows = x.shape[0]
        if workspace is None or workspace.batch < rows:
            workspace = None  # its memory first
            workspace = backends.current().workspace(wide, NOTHING, rows, np.zeros((1, 0), network.dtype))
        workspace.run(table, Data(_checks.source(x), nothing, nothing, rows), layers=layers)
        yield x, [_row_values(workspace, layer, row, rows) for layer, row in pairs]


def batches(data: Any, network: Network) -> Iterator[Matrix]:
    """Yield calibration data as matrices of the network's dtype, checked as they come.

    Parameters
    ----------
    data : array-like, (rows, ...), or batches
        Real numbers, of the network's input shape behind the rows: an array (a ``numpy.memmap`` or another thing that
        can be sliced is read slice by slice); an iterable of such arrays; or a function of no arguments that returns
        either.
    network : Network
        The network that is to take them.

    Yields
    ------
    ndarray, (rows, n_in)
        At most BATCH rows of the data, in order.

    Raises
    ------
    TypeError, ValueError
        If there are no rows, or one is not of numbers, of another shape, or holds NaN, infinity or masked elements
        (naming row and column).
    """
    step = max(1, min(BATCH, _ELEMENTS // network.width))
    empty = True
    for name, array in _parts(data, len(network.input_shape)):
        _check_rows(name, array, network)
        for first in range(0, array.shape[0], step):
            part = _checks.array_of(name, array[first : first + step], first)
            with np.errstate(over="ignore"):
                x = np.ascontiguousarray(part.reshape(len(part), network.n_in), network.dtype)
                finite = np.isfinite(x.astype(np.float32, copy=False))
            if not finite.all():
                row, column = np.argwhere(~finite)[0]
                raise ValueError(
                    f"{name}: NaN or infinity (in float32) in row {first + row}, column {column}; "
                    "remove or fill it first"
                )
            empty = False
            yield x
    if empty:
        raise ValueError("calibration: the data is empty: it has no rows")


def check_repeatable(data: Any, what: str) -> None:
    """Refuse data that can be gone through only once.

    Parameters
    ----------
    data : array-like or batches
        As for `batches`.
    what : str
        What goes through it several times, for the error.

    Raises
    ------
    ValueError
        If it is an iterator, a generator for instance.
    """
    if isinstance(data, Iterator):
        raise ValueError(
            f"calibration: {what} goes through the data more than once, and an iterator gives it only once; "
            "pass a list of batches, or a function that returns a new iterator"
        )


def _parts(data: Any, rank: int) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of the data, or what can be sliced like one, each with a name for errors."""
    if callable(data) and not hasattr(data, "shape"):
        data = data()
    whole = isinstance(data, (str, bytes, Mapping)) or hasattr(
        data, "__array__"
    )  # a DataFrame is gone through by columns
    if _is_array(data) or whole or not hasattr(data, "__iter__"):
        yield "calibration", data if _is_array(data) else np.asarray(data)
        return
    if isinstance(data, (list, tuple)) and data and _rank(data[0]) <= rank:
        yield "calibration", _as_array("calibration", data)  # rows, not batches
        return
    for number, part in enumerate(data):
        name = f"calibration batch {number}"
        yield name, part if _is_array(part) else _as_array(name, part)


def _is_array(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__"))


def _rank(value: Any) -> int:
    try:
        return np.ndim(value)
    except ValueError:  # parts that differ in length
        return 0


def _as_array(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name}: its rows differ in shape; give an array of inputs alone, or batches of such arrays"
        ) from None
    _checks.refuse_masked(name, value)
    return array


def _check_rows(name: str, array: Any, network: Network) -> None:
    """Refuse another shape or dtype, by a look at one row."""
    shape = network.input_shape
    fits = len(array.shape) == 1 + len(shape) and tuple(array.shape[1:]) == shape
    _checks.rows(name, np.asarray(array[:1] if fits else array), shape, network.first_label)


def _keeping_pre(network: Network) -> tuple[npt.NDArray[Any], int]:
    """Return the rows of inference, with buffers for the pre-activations of dense rows that are more than clamped."""
    layers, width = network.inference.copy(), network.width
    for layer, row in zip(layers, network.rows(), strict=True):
        if row.kind is DENSE and not is_clamp(row.activation):
            layer["pre"] = width
            width += int(layer["positions"] * layer["ld_out"])
    return layers, width


def _row_values(workspace: Workspace, layer: Any, row: Row, rows: int) -> RowValues:
    def tensor(name: str) -> Matrix:
        values = workspace.tensor(layer, name, rows)
        return values.reshape(-1, values.shape[-1])

    source, output = tensor("input"), tensor("output")
    second = tensor("second") if row.second >= 0 else None
    if row.kind is DENSE:
        return RowValues(source, second, tensor("pre"), output)
    return RowValues(source, second, source if row.kind is ACTIVATION else output, output)
