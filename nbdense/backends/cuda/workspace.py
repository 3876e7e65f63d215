"""The memory of runs on a GPU, and the launches that work on it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Accepted, Bytes, Data, Objective
from nbdense.backends.cuda.data import Resident, Slices, resident
from nbdense.backends.cuda.device import Stream, as_host_errors
from nbdense.backends.cuda.launches import Launches
from nbdense.backends.cuda.program import program
from nbdense.backends.cuda.rows import STEP
from nbdense.backends.cuda.translation import Translation
from nbdense.backends.cutting import Result, in_parts
from nbdense.backends.layout import Layout
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.elementwise.loss_forms import CUSTOM_LOSS
from nbdense.engine.tables import SLABS, UPDATE
from nbdense.network import Network
from nbdense.optimizers import Optimizer

GRAPHS = 8  # that a workspace keeps, at most
SIGNAL_FLOPS = 1e12  # floating-point operations between two looks for Ctrl-C: a second of a GPU, at most


class CudaWorkspace:
    """Everything that batches of up to ``batch`` rows need, on the device: see `nbdense.backends.base.Workspace`.

    Parameters
    ----------
    network : Network
    objective : Objective
    batch : int
        Rows of data at a time, at most.
    state : ndarray, (1 + slots, parameters)
        Row 0 takes gradients; the rest are the optimizer's slots.
    """

    def __init__(self, network: Network, objective: Objective, batch: int, state: npt.NDArray[Any]) -> None:
        self.network, self.state, self.batch = network, state, batch
        self.steps_at_once = max(1, int(SIGNAL_FLOPS / (2.0 * batch * max(1, network.multiply_adds))))
        self._objective = objective
        self._layout = Layout(network, objective, batch)
        self._columns = 1 + len(objective.metrics)
        with as_host_errors():
            self._stream = Stream()
            self._launches = Launches(self._stream, network, objective, self._layout, state.shape[0])
        self._slices = Slices(self._stream, batch, network.dtype)
        self._graphs: dict[Any, Callable[[], None]] = {}
        self._seen: set[Any] = set()  # what the last run depended on: worth a graph when it comes again

    def plan(
        self,
        phases: npt.NDArray[Any],
        *,
        layers: npt.NDArray[Any] | None = None,
        optimizer: Optimizer | None = None,
        accepted: Accepted | None = None,
    ) -> CudaPlan:
        """Prepare runs of these phases."""
        return CudaPlan(self, phases, layers, optimizer, accepted)

    def run(
        self,
        phases: npt.NDArray[Any],
        data: Data,
        *,
        layers: npt.NDArray[Any] | None = None,
        optimizer: Optimizer | None = None,
        **options: Any,
    ) -> Result:
        """Prepare a run and take it once."""
        return self.plan(phases, layers=layers, optimizer=optimizer).run(data, **options)

    def launch(
        self,
        phases: npt.NDArray[Any],
        data: Data,
        *,
        layers: npt.NDArray[Any] | None,
        optimizer: Optimizer | None,
        first_step: int = 0,
        count: int = 1,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = False,
    ) -> Result:
        """Work through batches ``first_step``.. of an epoch: `CudaPlan.run`, of a plan's own phases."""
        network = self.network
        updates = bool(phases[-1]["kind"] == SLABS and phases[-1]["flags"] & UPDATE)
        with as_host_errors():
            whole = resident(data, network.dtype, self._stream)
        projects = updates and bool(network.projections) and optimizer is not None
        most = 1 if projects else count if whole is not None else self._slices.steps(data)
        if count > most:
            launch = functools.partial(
                self.launch, phases, data, layers=layers, epoch=epoch, seed=seed, shuffle=shuffle
            )
            return in_parts(
                lambda optimizer: functools.partial(launch, optimizer=optimizer), first_step, count, optimizer, most
            )
        self._layout.fill_in(data, first_step, count, epoch, seed, shuffle, optimizer)
        hypers, rates = _rates(optimizer, self._layout.run[0], count)
        layers = network.layers if layers is None else layers
        with as_host_errors():
            launches = self._launches
            launches.kernels = program(network.dtype.name, *self._addresses())
            learns = network.segments["trainable"].tobytes()
            key = (phases.tobytes(), layers.tobytes(), network.slabs.tobytes(), learns, launches.kernels)
            rows = self._some_rows(data) if whole is None else whole
            key += launches.begin(phases, layers, self.state, hypers, rates, rows)
            left = count
            if key not in self._graphs:
                launches.step(phases)  # compiles, which cannot be done while launches are recorded
                left -= 1
                if left > 0 or key in self._seen:
                    if len(self._graphs) >= GRAPHS:
                        del self._graphs[next(iter(self._graphs))]  # the oldest
                    self._graphs[key] = self._stream.graph(lambda: launches.step(phases))
                self._seen = {key}
            for _ in range(left):
                self._graphs[key]()
            totals = launches.end(self.state, count, params=updates)
        done = int(launches.cursor_now[STEP])
        if updates:
            network.version += done
            if done and optimizer is not None:
                network.project()
        return done, totals

    def _some_rows(self, data: Data) -> Resident:
        """Bring the rows of a run's batches to the device, in their order: a data set of its own to the run."""
        run = self._layout.run
        first = int(run["first_step"][0]) * self.batch
        count = min(data.rows - first, int(run["steps"][0]) * self.batch)
        places = self._launches.places(first, count)
        run["rows"], run["first_step"], run["shuffle"] = count, 0, False
        return self._slices.take(data, places)

    def _addresses(self) -> tuple[frozenset[int], ...]:
        """Return the addresses of the loops on demand that a run may call: activations', losses' and optimizers'."""
        layers, run = self.network.layers, self._layout.run[0]
        activations = {int(call) for name in ("call_forward", "call_backward") for call in layers[name]} - {0}
        losses = {int(run["loss_call"])} if run["loss"] >= CUSTOM_LOSS else ()
        optimizers = {int(run["optimizer_call"])} - {0}
        return frozenset(activations), frozenset(losses), frozenset(optimizers)

    @property
    def nbytes(self) -> int:
        """Bytes of memory; gradients and slots, which belong to the model, are not among them."""
        return self._launches.nbytes

    def tensor(self, row: Any, name: str, rows: int, *, deltas: bool = False) -> npt.NDArray[Any]:
        """Return a copy of a row's values for the last batch, or of their deltas, (rows, positions, columns)."""
        return self._matrix(rows, *self._layout.place(row, name, deltas))

    def set_deltas(self, row: Any, deltas: npt.NDArray[Any]) -> None:
        """Set the deltas of a row's output."""
        start, positions, ld, n = self._layout.place(row, "output", True)
        padded = np.zeros((len(deltas), positions, ld), self.network.dtype)
        padded[:, :, :n] = deltas
        with as_host_errors():
            self._stream.write(self._launches.work[start : start + padded.size], padded.reshape(-1))

    def targets(self, rows: int) -> npt.NDArray[Any]:
        """Return a copy of the last batch's targets, (rows, positions, target_width)."""
        return self._matrix(rows, *self._layout.targets)

    def weights(self, rows: int) -> npt.NDArray[Any]:
        """Return a copy of the weights of the last batch's rows, (rows, positions, 1)."""
        return self._matrix(rows, *self._layout.weights)

    def _matrix(self, rows: int, start: int, positions: int, ld: int, n: int) -> npt.NDArray[Any]:
        with as_host_errors():
            flat = self._stream.read(self._launches.work[start : start + rows * positions * ld])
        return flat.reshape(rows, positions, ld)[:, :, :n]


class CudaPlan:
    """A run that is prepared, as far as the workspace's graphs are: see `nbdense.backends.base.Plan`."""

    def __init__(
        self,
        workspace: CudaWorkspace,
        phases: npt.NDArray[Any],
        layers: npt.NDArray[Any] | None,
        optimizer: Optimizer | None,
        accepted: Accepted | None,
    ) -> None:
        self._workspace, self._phases = workspace, phases
        self._layers, self._optimizer, self._accepted = layers, optimizer, accepted

    def run(self, data: Data, **options: Any) -> Result:
        """Work through batches of an epoch."""
        self._last = data
        return self._workspace.launch(self._phases, data, layers=self._layers, optimizer=self._optimizer, **options)

    def again(self, x: Bytes, y: Bytes, weights: Bytes, seed: int = 0) -> Result:
        """Work through one batch more, but for one whose numbers are to be looked at: the device does not."""
        if self._accepted is not None:
            return 0, np.zeros((1, 0))
        last = self._last
        return self.run(Data((x, last.x[1]), (y, last.y[1]), (weights, last.weights[1]), last.rows), seed=seed)


def _rates(optimizer: Optimizer | None, run: Any, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return each step's hyperparameters, and its learning rate as it is and as the optimizer changes it, float64."""
    hypers, rates = np.zeros((count, steps.HYPER)), np.zeros((count, 2))
    if optimizer is None:
        return hypers, rates
    hypers[:] = optimizer.hyper()
    rates[:, 0] = optimizer.rates(count)
    for k in range(count):
        rates[k, 1] = _rate_of_step()(run, rates[k, 0], run["iteration"] + k + 1, hypers[k])
    return hypers, rates


@functools.cache
def _rate_of_step() -> Callable[..., float]:
    """Return the engine's `rate_of_step`, for the host."""
    made: Callable[..., float] = Translation("float64", host=True)(steps.rate_of_step)
    return made
