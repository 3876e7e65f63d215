"""Single batches: those of a form that has been seen go straight to the compiled program."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Bytes, Data, Source, Workspace
from nbdense.training import phases, targets
from nbdense.training.accumulation import NO_BYTES, Result, TrainingSteps
from nbdense.training.evaluation import Room
from nbdense.training.state import TrainState

_FORMS = 16  # that are remembered at a time


class Runs(Protocol):
    """Protocol of what is prepared for batches of a form: `TrainingSteps`, or a `Plan`."""

    def run(self, data: Data, *, seed: int) -> Result:
        """Run a batch that has been looked at."""

    def again(self, x: Bytes, y: Bytes, weights: Bytes, seed: int) -> Result:
        """Run another of the same form."""


class Batches:
    """Runs over single batches, of which only the first of a form (shapes and dtypes) is looked at in Python.

    In later ones the compiled program looks at the numbers alone. What it refuses takes the way of the first, which has
    the messages.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled.
    learns : bool
        Whether each batch is a step of training; else its loss and metrics are computed.
    reports : bool
        Whether metrics are, beside the loss.

    Attributes
    ----------
    metrics : list of Metric
        What the runs report beside the loss.
    layers : structured array of `LAYER`
        The table that they run.
    """

    def __init__(self, state: TrainState, *, learns: bool, reports: bool = True) -> None:
        self._state, self._learns = state, learns
        self._network, self._reported = state.network, state.metrics
        self._optimizer, self._loss = state.compiled()
        self._clips = self._optimizer.clips_by_norm
        objective, self.metrics = state.objective(reports)
        self._room = Room(state, objective)
        self._accepted = targets.accepted(self._loss, self._network)
        self._known: dict[Any, Runs] = {}
        self.layers = self._network.layers if learns else self._network.evaluation

    @property
    def is_current(self) -> bool:
        """True as long as the model is the one that this was prepared for, and compiled as it was."""
        state = self._state
        return (
            state.built
            and state.network is self._network
            and state.optimizer is self._optimizer
            and state.loss is self._loss
            and state.metrics is self._reported
            and self._clips == self._optimizer.clips_by_norm
        )

    @property
    def workspace(self) -> Workspace:
        """The memory of the runs."""
        return self._room.workspace(1)

    def make_room(self, rows: int) -> None:
        """Make the memory for batches of so many rows."""
        self._room.workspace(rows)

    def run(self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> Result:
        """Run one batch; returned is what `Plan.run` returns.

        Parameters
        ----------
        x, y, sample_weight : array-like
            Inputs, targets and weights of rows.
        class_weight : mapping or str, optional
            Weights of classes.
        """
        given = (x, y) if sample_weight is None else (x, y, sample_weight)
        form = form_of(*given) if class_weight is None and self._accepted is not None else None
        runs = None if form is None else self._known.get(form)
        if runs is not None:
            weights = NO_BYTES if sample_weight is None else lent(sample_weight)
            done, totals = runs.again(lent(x), lent(y), weights, self._state.seed)
            if done:
                return done, totals
        data = self._state.data(x, y, sample_weight, class_weight)
        if form is not None and not all(map(is_lent, (data.x, data.y, data.weights), given)):
            form = None
        return self._prepared(form, data.rows).run(data, seed=self._state.seed)

    def _prepared(self, form: Any, rows: int) -> Runs:
        """Return what runs batches of a form."""
        before = self.workspace if self._known else None
        workspace = self._room.workspace(rows)
        if workspace is not before or len(self._known) >= _FORMS:
            self._known.clear()
        if form not in self._known:
            if self._learns:
                runs: Runs = TrainingSteps(workspace, self.layers, self._optimizer, self._accepted)
            else:
                runs = workspace.plan(phases.evaluation(self.layers), layers=self.layers, accepted=self._accepted)
            self._known[form] = runs
        return self._known[form]


def form_of(*arrays: Any) -> tuple[Any, ...] | None:
    """Return the shapes and dtypes of arrays whose memory can be lent as it lies; None where one is another thing."""
    form: tuple[Any, ...] = ()
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned):
            return None
        form += (array.shape, array.dtype)
    return form


def lent(array: npt.NDArray[Any]) -> Bytes:
    """Return the memory of an array that has a form, as it lies."""
    return np.frombuffer(array, np.uint8)


def is_lent(source: Source, array: npt.NDArray[Any]) -> bool:
    """Tell whether a source's memory is that of an array, not of a copy."""
    return source[0].nbytes == array.nbytes and source[0].ctypes.data == array.ctypes.data
