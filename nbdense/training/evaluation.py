"""Loss and metrics over a data set, batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Data, Workspace
from nbdense.metrics import Metric
from nbdense.network import Network
from nbdense.training import phases

EVALUATE_STEPS = 4096  # batches, at most, in a call of the compiled program


class Tally:
    """Sums of loss and metrics over the rows seen so far.

    Parameters
    ----------
    metrics : list of Metric
        Metrics, in the order of the program's columns behind the loss.
    positions : int
        Rows of outputs that a row of data has.
    """

    def __init__(self, metrics: list[Metric], positions: int) -> None:
        self._metrics, self._positions = metrics, positions
        self._sums = np.zeros(1 + len(metrics))
        self._rows = 0
        self._batches: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
        self.collects = any(metric.collects for metric in metrics)

    def add(self, totals: npt.NDArray[np.float64], rows: int, workspace: Workspace, layers: npt.NDArray[Any]) -> None:
        """Count in what a run reported of ``rows`` rows of data.

        Parameters
        ----------
        totals : ndarray, (batches, 1 + metrics), float64
        rows : int
        workspace : Workspace
            The workspace that it ran in: of a single batch, where a metric is no mean over rows and takes all targets
            and outputs.
        layers : structured array of `LAYER`
            The table that it ran.
        """
        # One after the other: how many steps a slice has depends on the clock, and the sums must not.
        self._sums = np.cumsum(np.vstack([self._sums, totals]), axis=0)[-1]
        self._rows += rows * self._positions
        if self.collects:
            outputs = workspace.tensor(layers[-1], "output", rows)
            self._batches.append((workspace.targets(rows).copy(), outputs.copy()))

    def means(self) -> dict[str, float]:
        """Return loss and metrics so far, but for those that need all outputs at once."""
        loss, *values = (self._sums / max(1, self._rows)).tolist()
        averages = {"loss": loss}
        for metric, value in zip(self._metrics, values, strict=True):
            if not metric.collects:
                averages[metric.name] = metric.finish(value)
        return averages

    def results(self) -> dict[str, float]:
        """Return loss and metrics, in their order."""
        averages = self.means()
        if not self.collects:
            return averages
        all_rows = [
            np.concatenate(arrays).reshape(-1, arrays[0].shape[-1]) for arrays in zip(*self._batches, strict=True)
        ]
        collected = {metric.name: metric.compute(*all_rows) for metric in self._metrics if metric.collects}
        return {name: {**averages, **collected}[name] for name in ["loss", *(m.name for m in self._metrics)]}


def tally_data(tally: Tally, workspace: Workspace, data: Data) -> None:
    """Run a data set through a network, and add its loss and metrics to a tally."""
    layers, batch = workspace.network.inference, workspace.batch
    table = phases.evaluation(layers)
    total, first = -(-data.rows // batch), 0
    while first < total:
        count = min(total - first, 1 if tally.collects else EVALUATE_STEPS, workspace.steps_at_once)
        done, totals = workspace.run(table, data, layers=layers, first_step=first, count=count)
        done = min(done + 1, count)  # a NaN ends a run, and belongs in the result
        rows = min((first + done) * batch, data.rows) - first * batch
        tally.add(totals[:done], rows, workspace, layers)
        first += done


def evaluate(workspace: Workspace, metrics: list[Metric], data: Data) -> dict[str, float]:
    """Return loss and metrics of a data set by name, penalties included."""
    network = workspace.network
    tally = Tally(metrics, network.positions_out)
    tally_data(tally, workspace, data)
    results = tally.results()
    results["loss"] += penalty(network)
    return results


def loss_and_gradient(
    workspace: Workspace, data: Data, seed: int = 0
) -> tuple[float, npt.NDArray[np.floating[Any]] | None]:
    """Compute the loss and its gradient by the parameters, as in a training step that is not taken.

    Parameters
    ----------
    workspace : Workspace
        Takes activations, deltas and, in row 0 of its state, the gradient.
    data : Data
        One batch.
    seed : int
        What dropout drops depends on it.

    Returns
    -------
    loss : float
        The mean over the batch's rows and their positions, penalties included.
    gradient : ndarray or None
        Flat as the parameters, penalties included, not clipped; None where the loss is not finite.
    """
    network = workspace.network
    done, totals = workspace.run(phases.training(network.layers, updates=False), data, seed=seed)
    return float(totals[0, 0]) / (data.rows * network.positions_out), workspace.state[0] if done else None


def penalty(network: Network) -> float:
    """Return what the regularizers add to the loss at the present weights."""
    total = 0.0
    for parameter, segment in zip(network.parameters, network.segments, strict=True):
        if segment["trainable"] and (segment["l1"] or segment["l2"]):
            values = network.tensor(parameter).astype(np.float64)
            with np.errstate(over="ignore"):  # infinite is what it is then
                total += float(segment["l1"] * np.abs(values).sum() + segment["l2"] * (values * values).sum())
    return total


def numbers_of(logs: dict[str, float], as_dict: bool) -> Any:
    """Return logs as Keras does: by name, as a list of numbers, or as the loss alone if there are no metrics."""
    if as_dict:
        return logs
    return list(logs.values()) if len(logs) > 1 else logs["loss"]
