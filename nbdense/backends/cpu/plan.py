"""Runs on the CPU, prepared once: what a call of the compiled program takes; few numbers change between two."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense._compile.pace import Pace
from nbdense._compile.policy import bound
from nbdense.backends.base import Accepted, Bytes, Data
from nbdense.backends.cutting import Result, in_parts
from nbdense.engine import program
from nbdense.engine.elementwise import optimizer as steps
from nbdense.engine.kernels.microkernel import ROWS as TILE_HEIGHTS
from nbdense.engine.rows.kind import set_addresses
from nbdense.engine.tables import ROLES, ROWS, RUN, SLABS, UPDATE, WHOLE
from nbdense.network import Network
from nbdense.optimizers import Optimizer

# Work between two looks for Ctrl-C, which Python hears only outside compiled code: hundredths of a second of a fast
# core, a few tenths of a very slow one.
SIGNAL_WORK = 2e9
CHUNK, LEAST_CHUNK = 96, 48  # rows that predict takes through all layers at a time, at most and at least
_PIECES = 8  # that a run is cut into where it is not known how many threads will do
_OF_COLUMN = 32.0  # operations that a column of the workspace is worth beside the products: its activation, its gather


def work_of_row(network: Network) -> float:
    """Return about how many operations a row of data costs on its way forward."""
    return 2.0 * network.multiply_adds + _OF_COLUMN * network.width


def rows_at_once(network: Network) -> int:
    """Return how many rows a call of the compiled program may take forward for Ctrl-C to be heard in time."""
    return max(1, int(SIGNAL_WORK / work_of_row(network)))


def rows_of_chunk(network: Network) -> int:
    """Return how many rows predict takes through all layers at a time: whole tiles, between two bounds.

    All that they put out is to fit in a quarter of a core's second level of cache, beside the kernels that pass
    through it. Fewer would read the kernels too often, and more gain nothing.
    """
    fit = thread_pool.cpus().second_level // 4 // max(1, network.width * network.dtype.itemsize)
    return max(LEAST_CHUNK, min(CHUNK, fit // TILE_HEIGHTS[0] * TILE_HEIGHTS[0]))


@dataclass(frozen=True, eq=False)
class Memory:
    """The memory of a workspace. Its plans share it: one is run at a time.

    Attributes
    ----------
    network : Network
    batch : int
        Rows of data at a time, at most.
    state : ndarray, (1 + slots, parameters)
        Gradients and the optimizer's slots.
    record : structured array of one `RUN`
        Where everything lies in ``work``, and what is computed from outputs and targets.
    work, values, metrics, order, sums : ndarray
        As the compiled program takes them.
    rounded : ndarray
        Room for a copy of the parameters, where rows read rounded kernels.
    """

    network: Network
    batch: int
    state: npt.NDArray[Any]
    record: npt.NDArray[Any]
    work: npt.NDArray[Any]
    values: npt.NDArray[np.float64]
    metrics: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    rounded: npt.NDArray[Any]


class CpuPlan:
    """A run that is prepared: see `nbdense.backends.base.Plan`.

    Parameters
    ----------
    memory : Memory
    phases : structured array of `PHASE`
    layers : structured array of `LAYER`, optional
        By default the network's for training, as it is at each run.
    optimizer : Optimizer, optional
    accepted : Accepted, optional
    """

    def __init__(
        self,
        memory: Memory,
        phases: npt.NDArray[Any],
        layers: npt.NDArray[Any] | None,
        optimizer: Optimizer | None,
        accepted: Accepted | None,
    ) -> None:
        self._memory, self._phases, self._layers, self._optimizer = memory, phases, layers, optimizer
        network = memory.network
        self._run = memory.record.copy()
        self._fields = {name: self._run[name] for name in RUN.names or ()}
        self._seed, self._iteration, self._looks = (self._fields[name] for name in ("seed", "iteration", "checks"))
        self._set(
            threads=1, begin=0, end=WHOLE, optimizer=steps.NONE, average=-1.0, rounds_kernels=network.rounds_kernels
        )
        self._checks = 0 if accepted is None else program.address_of_check(network.dtype)
        if accepted is not None:
            self._set(least=accepted.least, most=accepted.most, whole=accepted.whole)
            self._set(sum_tolerance=accepted.sum_tolerance)
        self._updates = bool(phases[-1]["kind"] == SLABS and phases[-1]["flags"] & UPDATE)
        passes = 3 if len(phases) > 1 else 1
        self._flops = 2.0 * memory.batch * network.multiply_adds * passes
        self._work = work_of_row(network) * memory.batch * passes
        self._is_large = self._flops >= thread_pool.LEAST_PARALLEL_FLOPS or self._work > SIGNAL_WORK
        self._pace = Pace()
        self._entry: Callable[..., Any] = program.run_steps
        self._is_bound = False
        self._edition = -1  # of the optimizer's settings
        self._steps: tuple[Any, ...] = ()  # those of them that say what a step is made of
        self._settings = np.zeros(steps.HYPER), np.zeros(1)
        self._results = self._scratch(1)
        self._take_tables()

    def _scratch(self, count: int) -> tuple[npt.NDArray[Any], ...]:
        """Return the arrays that the compiled program writes to, with room for the totals of so many batches."""
        memory = self._memory
        totals = np.zeros((count, 1 + memory.metrics.size))
        return memory.work, memory.values, totals, memory.metrics, memory.order, memory.sums

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            self._fields[name][0] = value

    def _take_tables(self) -> None:
        """Take the network's arrays: others may have come in the place of some."""
        memory, network = self._memory, self._memory.network
        mask = network.held_mask()
        self._params, self._mask, self._slabs, self._rows = network.params, network.mask, network.slabs, network.layers
        values = memory.rounded if network.rounds_kernels else network.params
        layers = self._rows if self._layers is None else self._layers
        only_forward = len(self._phases) == 1 and self._phases[0]["backward_end"] == 0
        set_addresses(layers, network.dtype, ("forward",) if only_forward else ROLES)
        self._tables = (layers, self._slabs, network.segments, self._phases)
        self._vectors = (network.params, memory.state, mask, values)
        self._set_addresses()

    def _set_addresses(self) -> None:
        memory = self._memory
        holds = self._vectors[2].size > 0
        program.set_addresses(self._run, self._tables, memory.network.dtype, memory.metrics.size, holds)

    def _take_settings(self, optimizer: Optimizer) -> None:
        """Take the optimizer's settings: some have been set since."""
        fields = optimizer.run_fields(self._memory.network.dtype)
        self._set(**fields)
        self._edition, self._every = optimizer.edition, optimizer.gradient_accumulation_steps or 1
        self._follows_schedule = optimizer.schedule is not None
        self._settings = optimizer.hyper(), optimizer.rates(1)
        made_of = tuple(fields[name] for name in ("optimizer", "clip", "decay", "average"))
        if made_of != self._steps:  # and not at each new learning rate
            self._steps = made_of
            self._set_addresses()

    def run(
        self,
        data: Data,
        *,
        first_step: int = 0,
        count: int = 1,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = False,
    ) -> Result:
        """Work through batches ``first_step``.. of an epoch."""
        network = self._memory.network
        if count > 1 and self._updates and network.projections and self._optimizer is not None:
            return in_parts(
                lambda optimizer: functools.partial(
                    CpuPlan(self._memory, self._phases, self._layers, optimizer, None).run,
                    data,
                    epoch=epoch,
                    seed=seed,
                    shuffle=shuffle,
                ),
                first_step,
                count,
                self._optimizer,
            )
        self._set(rows=data.rows, first_step=first_step, steps=count, epoch=epoch, seed=seed, shuffle=shuffle, checks=0)
        self._forms = data.x[1], data.y[1], data.weights[1]
        return self._execute((*data.x, *data.y, *data.weights), count)

    def again(self, x: Bytes, y: Bytes, weights: Bytes, seed: int = 0) -> Result:
        """Work through one batch more, in memory of the last run's form that nobody has looked at."""
        if not self._is_bound:
            self._bind()
        x_form, y_form, w_form = self._forms
        self._seed[0], self._looks[0] = seed, self._checks
        return self._execute((x, x_form, y, y_form, weights, w_form), 1)

    def _bind(self) -> None:
        """Bind the entry to the types of its arguments, which are always the same."""
        none = np.zeros(0, np.uint8)
        x_form, y_form, w_form = self._forms
        data = (none, x_form, none, y_form, none, w_form)
        arguments = (self._tables, self._vectors, self._results, data, self._run, self._settings)
        self._entry = bound(self._entry, arguments)
        self._is_bound = True

    def _execute(self, data: tuple[Any, ...], count: int) -> Result:
        """Call the compiled program, with what is no longer as it was in the last call renewed."""
        network, optimizer = self._memory.network, self._optimizer
        if (
            self._params is not network.params
            or self._mask is not network.mask
            or self._slabs is not network.slabs
            or self._rows is not network.layers
        ):
            self._take_tables()
        if optimizer is not None:
            if self._edition != optimizer.edition:
                self._take_settings(optimizer)
            self._iteration[0] = optimizer.batches // self._every
            if self._follows_schedule or count > self._settings[1].size:
                self._settings = self._settings[0], optimizer.rates(count)
        elif count > self._settings[1].size:
            self._settings = self._settings[0], np.zeros(count)
        if network.rounds_kernels:  # the parameters may have been written to since the last run
            program.round_kernels(network.layers, network.params, self._memory.rounded)
        scratch = self._results if count == 1 else self._scratch(count)
        if self._is_large:
            done = self._execute_large(data, count, scratch)
        else:  # some microseconds: no time for more questions
            done = self._entry(self._tables, self._vectors, scratch, data, self._run, self._settings)
        if self._updates:
            network.version += done
            if done and optimizer is not None and network.projections:
                network.project()
        return done, scratch[2]

    def _execute_large(self, data: tuple[Any, ...], count: int, scratch: tuple[npt.NDArray[Any], ...]) -> int:
        """Call the compiled program on as many threads as are worth while, and in parts that Ctrl-C can part."""
        work, values, totals, *others = scratch
        hyper, rates = self._settings
        first, iteration = (int(self._fields[name][0]) for name in ("first_step", "iteration"))
        at, piece = 0, count

        def call(phases: npt.NDArray[Any], begin: int = 0, end: int = WHOLE) -> int:
            with self._pace.region(self._flops, self._work * piece * len(phases) / len(self._phases)) as granted:
                self._set(threads=granted, launcher=thread_pool.launcher(granted), begin=begin, end=end)
                return int(
                    self._entry(
                        (*self._tables[:3], phases),
                        self._vectors,
                        (work, values, totals[at:], *others),
                        data,
                        self._run,
                        (hyper, rates[at:]),
                    )
                )

        try:
            if count == 1 and self._work > SIGNAL_WORK:
                rows = min(self._memory.batch, int(self._fields["rows"][0]) - first * self._memory.batch)
                return self._in_parts(call, rows)
            while at < count:
                piece = -(-(count - at) // _PIECES) if self._pace.is_trying() else count - at
                self._set(first_step=first + at, steps=piece, iteration=iteration + at)
                done = call(self._phases)
                at += done
                if done < piece:
                    break
            return at
        finally:
            self._set(threads=1, launcher=0, begin=0, end=WHOLE, first_step=first, steps=count)

    def _in_parts(self, call: Callable[..., int], rows: int) -> int:
        """Take one long step in calls between which Python hears Ctrl-C, and undo it where that comes.

        Returns
        -------
        int
            1, or 0 where the loss was not finite.
        """
        saved: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        params, slots = self._memory.network.params, self._memory.state[1:]
        try:
            for index, phase in enumerate(self._phases):
                parts = {ROWS: rows, SLABS: self._slabs.size}.get(int(phase["kind"]), 1)
                if phase["kind"] == SLABS and phase["flags"] & UPDATE:
                    saved = params.copy(), slots.copy()
                count = min(parts, -int(-self._work // SIGNAL_WORK))
                for begin, end in pairwise(parts * part // max(1, count) for part in range(count + 1)):
                    if call(self._phases[index : index + 1], begin, end if end < parts else WHOLE) == 0:
                        return 0
        except BaseException:
            if saved is not None:
                params[:], slots[:] = saved
            raise
        return 1
