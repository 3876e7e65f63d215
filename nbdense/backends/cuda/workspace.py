"""The memory of runs on a GPU, and the launches that work on it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Data, Objective, Source
from nbdense.backends.cuda.device import Stream, as_host_errors
from nbdense.backends.cuda.launches import Launches
from nbdense.backends.cuda.program import program
from nbdense.backends.cuda.rows import STEP
from nbdense.backends.cuda.translation import Translation
from nbdense.backends.layout import Layout
from nbdense.backends.projection import one_by_one
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.elementwise.loss_forms import CUSTOM_LOSS
from nbdense.engine.kernels.gather import DTYPES
from nbdense.engine.tables import SLABS, UPDATE
from nbdense.network import Network
from nbdense.optimizers import Optimizer

GRAPHS = 8  # that a workspace keeps, at most
SIGNAL_FLOPS = 1e12  # floating-point operations between two looks for Ctrl-C: a second of a GPU, at most


@dataclass(frozen=True, eq=False)
class Resident:
    """A data set on the device: inputs, targets, and the rows' weights; an array that is not there has one element."""

    x: Any
    y: Any
    weights: Any
    target_columns: int
    weighted: bool


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
        self._graphs: dict[Any, Callable[[], None]] = {}
        self._seen: set[Any] = set()  # what the last run depended on: worth a graph when it comes again

    def run(
        self,
        phases: npt.NDArray[Any],
        data: Data,
        *,
        layers: npt.NDArray[Any] | None = None,
        first_step: int = 0,
        count: int = 1,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        optimizer: Optimizer | None = None,
    ) -> tuple[int, npt.NDArray[np.float64]]:
        """Work through batches ``first_step``.. of an epoch."""
        network = self.network
        updates = bool(phases[-1]["kind"] == SLABS and phases[-1]["flags"] & UPDATE)
        if updates and network.projections and optimizer is not None and count > 1:
            options = {"layers": layers, "epoch": epoch, "seed": seed, "shuffle": shuffle}
            return one_by_one(self, phases, data, first_step, count, optimizer, options)
        self._layout.fill_in(data, first_step, count, epoch, seed, shuffle, optimizer)
        hypers, rates = _rates(optimizer, self._layout.run[0], count)
        layers = network.layers if layers is None else layers
        with as_host_errors():
            launches = self._launches
            launches.kernels = program(network.dtype.name, *self._addresses())
            key = (phases.tobytes(), layers.tobytes(), network.slabs.tobytes(), launches.kernels)
            key += launches.begin(layers, self.state, hypers, rates, resident(data, network.dtype, self._stream))
            left = count
            if key not in self._graphs:
                launches.step(phases)  # compiles, which cannot be done while launches are recorded
                left -= 1
                if left > 0 or key in self._seen:
                    if len(self._graphs) >= GRAPHS:
                        self._graphs.clear()
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

    def _addresses(self) -> tuple[frozenset[int], ...]:
        """Return the addresses of the loops on demand that a run may call: activations', losses' and optimizers'."""
        layers, run = self.network.layers, self._layout.run[0]
        activations = {int(call) for name in ("call_forward", "call_backward") for call in layers[name]} - {0}
        losses = {int(run["loss_call"])} if run["loss"] == CUSTOM_LOSS else ()
        optimizers = {int(run["optimizer"])} if run["optimizer"] > steps.LION else ()
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


_resident: weakref.WeakKeyDictionary[Data, dict[Any, Resident]] = weakref.WeakKeyDictionary()


def resident(data: Data, dtype: np.dtype[Any], stream: Stream) -> Resident:
    """Return a data set on the device, in a network's dtype: copied once for each `Data`."""
    copies = _resident.setdefault(data, {})
    if dtype not in copies:
        x, y, weights = (stream.to_device(matrix(source, dtype)) for source in (data.x, data.y, data.weights))
        copies[dtype] = Resident(x, y, weights, int(data.y[1][0]["columns"]), bool(data.weights[1][0]["rows"]))
    return copies[dtype]


def matrix(source: Source, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the rows of a source, C-ordered, in a dtype; a source of no rows gives one of a single zero."""
    memory, forms = source
    form = forms[0]
    if form["rows"] == 0 or form["columns"] == 0:
        return np.zeros((1, 1), dtype)
    kind = next(dtype for dtype, code in DTYPES.items() if code == form["code"])
    strides = int(form["row_stride"]), int(form["column_stride"])
    shape = int(form["rows"]), int(form["columns"])
    rows = np.ndarray(shape, kind, memory.data, int(form["offset"]), strides)
    return np.ascontiguousarray(rows, dtype)


def _rates(optimizer: Optimizer | None, run: Any, count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return each step's hyperparameters, and its learning rate as it is and as the optimizer changes it, float64."""
    hypers, rates = np.zeros((count, steps.HYPER)), np.zeros((count, 2))
    if optimizer is None:
        return hypers, rates
    hypers[:] = optimizer.hyper()
    rates[:, 0] = optimizer.rates(count)
    rate_of_step, code, before = (
        Translation("float64", host=True)(steps.rate_of_step),
        run["optimizer"],
        run["iteration"],
    )
    for k in range(count):
        rates[k, 1] = rate_of_step(code, rates[k, 0], before + k + 1, hypers[k])
    return hypers, rates
