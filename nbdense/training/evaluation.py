"""Loss and metrics over a data set, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense.backends.base import Data, Objective, Workspace
from nbdense.metrics import Metric
from nbdense.network import Network
from nbdense.training import phases
from nbdense.training.feeding import Feed
from nbdense.training.state import TrainState

EVALUATE_STEPS = 4096  # batches, at most, in a call of the compiled program
ROWS_TOGETHER = 8192  # that are counted at once: a call of NumPy's costs as much as the step of a small network


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
        # Copies: the objects that were compiled are the user's, to count with by themselves.
        self._collecting = {metric.name: metric.fresh() for metric in metrics if metric.collects}
        self._waiting: list[tuple[npt.NDArray[Any], ...]] = []  # batches to count together
        self.collects = bool(self._collecting)
        self._weighs = any(metric.weighted for metric in metrics)

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
        if len(totals) == 1:
            self._sums = self._sums + totals[0]
        else:
            self._sums = np.cumsum(np.vstack([self._sums, totals]), axis=0)[-1]
        self._rows += rows * self._positions
        if self.collects:
            parts = [workspace.targets(rows), workspace.tensor(layers[-1], "output", rows)]
            if self._weighs:
                parts.append(workspace.weights(rows))
            self._collect(*(part.reshape(-1, part.shape[-1]).copy() for part in parts))

    def _collect(self, *batch: npt.NDArray[Any]) -> None:
        """Hand a batch's rows to metrics without a compiled form: by themselves, or many together where they may be."""
        self._count(True, batch)
        self._waiting.append(batch)
        if len(self._waiting) * len(batch[1]) >= ROWS_TOGETHER:
            self._count_waiting()

    def _count_waiting(self) -> None:
        if self._waiting:
            rows = [np.concatenate(arrays) for arrays in zip(*self._waiting, strict=True)]
            self._waiting.clear()
            self._count(False, rows)

    def _count(self, by_batch: bool, rows: Sequence[npt.NDArray[Any]]) -> None:
        """Hand targets, outputs and, where some are weighted, weights of rows to metrics of one kind."""
        for metric in self._collecting.values():
            if metric.by_batch == by_batch:
                weights = (rows[2][:, 0],) if metric.weighted else ()
                metric.update_state(*rows[:2], *weights)

    def means(self) -> dict[str, float]:
        """Return loss and metrics so far, but for those that need all outputs at once."""
        loss, *values = (self._sums / max(1, self._rows)).tolist()
        averages = {"loss": loss}
        for metric, value in zip(self._metrics, values, strict=True):
            if not metric.collects:
                averages[metric.name] = metric.finish(value)
        return averages

    def results(self) -> dict[str, Any]:
        """Return loss and metrics, in their order: numbers, or an array of a metric that has several."""
        self._count_waiting()
        averages = self.means()
        results: dict[str, Any] = {"loss": averages["loss"]}
        for metric in self._metrics:
            collecting = self._collecting.get(metric.name)
            value = averages[metric.name] if collecting is None else collecting.result()
            results |= value if isinstance(value, dict) else {metric.name: value}
        return {name: _plain(value) for name, value in results.items()}


def _plain(value: Any) -> Any:
    """Return one number as a float, several as an array."""
    array = np.asarray(value)
    return float(array.reshape(())) if array.size == 1 else array


class TestHooks(Protocol):
    """Protocol of what an evaluation reports its batches to.

    Attributes
    ----------
    each_test_batch : bool
        Whether any hook around batches is wanted: then compiled code runs one batch at a time.
    """

    each_test_batch: bool

    def call(self, name: str, *arguments: Any, logs: dict[str, Any] | None = None) -> None:
        """Call a hook, such as "on_test_batch_end"."""


def tally_data(tally: Tally, workspace: Workspace, data: Data) -> None:
    """Run a data set through a network, and add its loss and metrics to a tally."""
    tally_steps(tally, workspace, data, 0, -(-data.rows // workspace.batch))


def tally_steps(tally: Tally, workspace: Workspace, data: Data, first: int, count: int) -> None:
    """Run some batches of a data set through a network, and add their loss and metrics to a tally."""
    layers, batch = workspace.network.evaluation, workspace.batch
    plan = workspace.plan(phases.evaluation(layers), layers=layers)
    total = first + count
    while first < total:
        count = min(total - first, 1 if tally.collects else EVALUATE_STEPS, workspace.steps_at_once)
        done, totals = plan.run(data, first_step=first, count=count)
        done = min(done + 1, count)  # a NaN ends a run, and belongs in the result
        rows = min((first + done) * batch, data.rows) - first * batch
        tally.add(totals[:done], rows, workspace, layers)
        first += done


def evaluate_feed(room: Room, metrics: list[Metric], feed: Feed, hooks: TestHooks | None = None) -> dict[str, Any]:
    """Return loss and metrics of the steps that a feed has, by name, penalties included.

    Parameters
    ----------
    room : Room
        The memory of the runs.
    metrics : list of Metric
        What is reported beside the loss.
    feed : Feed
        What the steps read.
    hooks : TestHooks, optional
        What batches are reported to.

    Returns
    -------
    dict
        Of nothing where the feed has no batches left.
    """
    tally = Tally(metrics, room.network.positions_out)
    watching = hooks if hooks is not None and hooks.each_test_batch else None
    if not feed.begin(0):
        return {}
    first = 0
    while (steps := feed.take(first, EVALUATE_STEPS if watching is None else 1)) is not None:
        if watching is not None:
            watching.call("on_test_batch_begin", first)
        tally_steps(tally, room.workspace(feed.batch), *steps)
        first += steps[2]
        if watching is not None:
            watching.call("on_test_batch_end", first - 1, logs=tally.means())
    results = tally.results()
    results["loss"] += penalty(room.network)
    return results


def evaluate_on(state: TrainState, feed: Feed, hooks: TestHooks | None = None) -> dict[str, Any]:
    """Return loss and metrics of a feed by name, as the model was compiled."""
    objective, metrics = state.objective()
    return evaluate_feed(Room(state, objective), metrics, feed, hooks)


class Room:
    """The memory of runs over batches, which grows with their size.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled.
    objective : Objective
        What runs compute from outputs and targets.
    """

    def __init__(self, state: TrainState, objective: Objective) -> None:
        self._state, self._objective, self._vectors = state, objective, state.vectors
        self._workspace: Workspace | None = None

    @property
    def network(self) -> Network:
        """The network that is run.

        Raises
        ------
        RuntimeError
            If the model has been built or compiled anew since: runs would work on memory that is no longer its own.
        """
        if not self._state.holds(self._vectors):
            raise RuntimeError(
                "a callback has compiled the model anew, or changed its optimizer or its layers, amid fit or evaluate: "
                "do that between two calls"
            )
        return self._state.network

    def workspace(self, batch: int) -> Workspace:
        """Return a workspace for batches of so many rows, or more where there has been a larger one."""
        network = self.network
        if self._workspace is None or self._workspace.batch < batch:
            self._workspace = None  # its memory first
            self._workspace = backends.current().workspace(network, self._objective, batch, self._vectors)
        return self._workspace


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


def numbers_of(logs: dict[str, Any], as_dict: bool) -> Any:
    """Return logs as Keras does: by name, as a list of numbers, or as the loss alone if there are no metrics."""
    if as_dict:
        return logs
    return list(logs.values()) if len(logs) > 1 else logs["loss"]
