"""Scores of kernels' weights, of which the lowest go first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import DENSE
from nbdense.network import Network, Row
from nbdense.quant.weights.gptq import input_moments
from nbdense.quant.weights.least_squares import inverse_diagonal
from nbdense.training.evaluation import loss_and_gradient
from nbdense.training.state import TrainState

ROWS = 512  # of data in a batch whose gradient is taken

Array = npt.NDArray[Any]
Combine = Callable[[npt.NDArray[np.float64], Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]], Any]


@dataclass(frozen=True)
class Criterion:
    """A criterion: how weights are scored, and pieces of several weights.

    Attributes
    ----------
    scores : callable
        Of (model, network, rows, calibration) the scores of each row's kernel. The model is None where a network was
        given.
    combine : callable
        Of the scores of a kernel's weights and a function that takes means over pieces, the scores of pieces.
    needs : str
        The data that it needs, for errors; empty where it needs none.
    takes_gradients : bool
        Whether it needs a compiled model, and not its network alone.
    """

    scores: Callable[[Any, Network, Sequence[Row], Any], list[Array]]
    combine: Combine
    needs: str = ""
    takes_gradients: bool = False


def _magnitude(model: Any, network: Network, rows: Sequence[Row], calibration: Any) -> list[Array]:
    return [np.abs(row.kernel) for row in rows]


def _lamp(model: Any, network: Network, rows: Sequence[Row], calibration: Any) -> list[Array]:
    """Return each squared weight's share of the sum of those of its kernel that are not smaller.

    Of all layers together that removes what distorts each least, whatever its scale (Lee et al. 2021, section 3).
    """
    scores = []
    for row in rows:
        squares = np.square(row.kernel.astype(np.float64)).ravel()
        order = np.argsort(-squares, kind="stable")
        score = np.zeros_like(squares)
        sums = np.cumsum(squares[order])
        np.divide(squares[order], sums, out=sums, where=sums > 0)
        score[order] = sums
        scores.append(score.reshape(row.kernel.shape))
    return scores


def _movement(model: Any, network: Network, rows: Sequence[Row], calibration: Any) -> list[Array]:
    """Return -weight times gradient, summed over the data: by how much the loss grows, at first, when it goes to zero.

    A weight that training moves away from zero has a high score (Sanh et al. 2020, section 3).
    """
    for row in rows:
        if not _learns(network, row):
            raise ValueError(
                f"criterion 'movement': {row.label} is frozen, so its weights have no gradients; exempt it, or let it "
                "learn"
            )
    total = np.zeros(network.params.size)
    for gradient in gradients(model, network, calibration):
        total -= gradient * network.params.astype(np.float64)
    return kernel_views(network, rows, total)


def _learns(network: Network, row: Row) -> bool:
    at = {int(offset): bool(learns) for offset, learns in network.segments[["offset", "trainable"]].tolist()}
    return at[int(network.inference[row.index]["kernel"])]


def _second_order(model: Any, network: Network, rows: Sequence[Row], calibration: Any) -> list[Array]:
    """Return w^2 / (2 [H^-1]_ii): by how much a layer's squared output error grows where the others make up for it."""
    moments = input_moments(network, calibration)
    diagonals: dict[int, Array] = {}  # rows that read one tensor share an array of moments
    scores = []
    for row in rows:
        matrix = moments[row.index]
        if id(matrix) not in diagonals:
            diagonals[id(matrix)] = inverse_diagonal(matrix)
        scores.append(np.square(row.kernel.astype(np.float64)) / (2 * diagonals[id(matrix)][:, None]))
    return scores


def _norm(values: npt.NDArray[np.float64], mean: Any) -> Any:
    return np.sqrt(mean(np.square(values)))


def _sum(values: npt.NDArray[np.float64], mean: Any) -> Any:
    return mean(values)


CRITERIA = {
    "magnitude": Criterion(_magnitude, _norm),
    "lamp": Criterion(_lamp, _sum),
    "movement": Criterion(_movement, _sum, "(x, y): inputs and targets, as fit takes them", takes_gradients=True),
    "second_order": Criterion(_second_order, _sum, "inputs, as quantize takes them"),
}


def gradients(model: Any, network: Network, calibration: Any) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the gradient of a model's loss for some hundred rows of data after the other, as the program computes it.

    Parameters
    ----------
    model : Sequential
        Compiled; nothing of it changes.
    network : Network
        A network of its layers, whose parameters count. Its mask does not: what it holds has a gradient too.
    calibration : (x, y)
        Inputs and targets, as `Sequential.fit` takes them.

    Yields
    ------
    ndarray of float64, flat
        As the parameters: means over the batch's rows, times the rows.

    Raises
    ------
    ValueError
        If the data are no pair, or the loss is not finite.
    """
    if not (isinstance(calibration, tuple | list) and len(calibration) == 2):
        raise ValueError("gradients need calibration=(x, y): inputs and targets")
    state: TrainState = model.train_state
    objective, _ = state.objective(reports=False)
    x, y, _ = state.arrays(*calibration)
    free = dataclasses.replace(network, layers=network.layers.copy(), mask=None)
    vectors = aligned_zeros((1, network.params.size), network.dtype)
    rows = min(ROWS, len(x))
    workspace = backends.current().workspace(free, objective, rows, vectors)
    for first in range(0, len(x), rows):
        data = state.data(x[first : first + rows], y[first : first + rows])
        _, gradient = loss_and_gradient(workspace, data, state.seed)
        if gradient is None:
            raise ValueError(f"the loss of the calibration data is not finite in rows {first} to {first + rows - 1}")
        yield gradient.astype(np.float64) * data.rows


def kernel_views(network: Network, rows: Sequence[Row], vector: Array) -> list[Array]:
    """Return views of a flat vector like the parameters, one for each row's kernel.

    Parameters
    ----------
    network : Network
        The network.
    rows : sequence of Row
        Dense rows of it.
    vector : ndarray
        A mask, gradients, or anything laid out as ``network.params``.
    """
    at = {parameter.offset: parameter for parameter in network.parameters}
    return [network.tensor(at[int(network.inference[row.index]["kernel"])], vector) for row in rows]


def dense_rows(network: Network) -> list[Row]:
    """Return the rows that have a kernel; a norm's gamma is none.

    Parameters
    ----------
    network : Network
        The network.
    """
    return [row for row in network.rows() if row.kind is DENSE]
