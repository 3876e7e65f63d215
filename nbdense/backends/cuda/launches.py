"""The launches of a step: what each phase of the table is on a GPU, and the memory that they work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import Objective
from nbdense.backends.cuda.device import FULL, Stream, spread
from nbdense.backends.cuda.fused.plan import Plan, is_whole, plan_of
from nbdense.backends.cuda.fused.training import BACKWARD, KEEP
from nbdense.backends.cuda.products import THREADS_OF_TILE, TILE
from nbdense.backends.cuda.program import Program, common
from nbdense.backends.cuda.rows import CURSOR, SUM_THREADS
from nbdense.backends.cuda.update import PIECE
from nbdense.backends.layout import Layout
from nbdense.engine.elementwise.activations import RELU
from nbdense.engine.rows import ACTIVATION, DENSE, kind_of
from nbdense.engine.tables import (
    ADD_DELTA,
    BIAS,
    CLIP,
    CLIP_NORM,
    DELTA_GATED,
    FACTORS,
    GATE_DELTA,
    GATHER,
    GRADIENT,
    IDLE,
    LOSS,
    MOVING,
    NO_DELTA,
    ROWS,
    SLABS,
    STATISTICS,
    SUMS,
    TRANSPOSES,
    UPDATE,
)
from nbdense.network import Network

LEAST_SHARE = 64  # rows of a batch that a block of a gradient takes, at least


class Launches:
    """A network's memory on the device, and the launches of its steps.

    Parameters
    ----------
    stream : Stream
    network : Network
    objective : Objective
    layout : Layout
    vectors : int
        Rows of the state.
    """

    kernels: Program

    def __init__(self, stream: Stream, network: Network, objective: Objective, layout: Layout, vectors: int) -> None:
        self._stream, self._network, self._layout = stream, network, layout
        self._common = common(network.dtype.name)
        self._fused, self._width = objective.fused, objective.target_width
        self._batch = int(layout.run["batch"][0])
        dtype, rows = network.dtype, self._batch * network.positions_out
        zeros = stream.zeros
        self.work = zeros(layout.size, dtype)
        self._values, self._order = zeros(rows * (1 + len(objective.metrics)), np.float64), zeros(self._batch, np.int64)
        self._metrics = stream.to_device(np.array([*objective.metrics, 0], np.int64))  # one more: none is no array
        self._columns = 1 + len(objective.metrics)
        self._params, self._state = zeros(network.params.size, dtype), zeros((vectors, network.params.size), dtype)
        self._rounded = zeros(network.params.size if network.rounds_kernels else 1, dtype)
        self._mask = zeros(network.params.size if network.mask is not None else 1, dtype)
        self._cursor, self._run = zeros(CURSOR, np.int64), stream.to_device(layout.run)
        self._sums = zeros((len(network.segments), 2), np.float64)
        self._steps = 0
        self._tables: dict[Any, Any] = {}
        self._plans: dict[bytes, Plan | None] = {}
        self._shares, self._size_of_shares = self._laid_out_shares()
        self._all_parts: dict[bool, Any] = {}  # of gradients: those of whole steps' kernel, and of others
        self._choose(network.layers, True)
        self._take_parts()
        pieces, piece_of = self._pieces_now()
        self._pieces, self._piece_of = stream.to_device(pieces), stream.to_device(piece_of)
        self.cursor_now = np.zeros(CURSOR, np.int64)

    def _choose(self, layers: npt.NDArray[Any], whole: bool) -> None:
        """Choose the kernels of a run: one of whole steps, where its phases are such and its table has room for it."""
        self._host_layers = layers
        key = layers.tobytes() + self._network.segments.tobytes()
        if key not in self._plans:
            self._plans[key] = plan_of(self._network, layers, self._batch)
        self._plan = self._plans[key] if whole else None

    def _take_parts(self) -> None:
        """Let the run's gradients leave their parts in the memory of its kernels' kind, whose padding stays zero."""
        plan = self._plan
        fused = plan is not None
        if fused not in self._all_parts:
            size = self._size_of_shares if plan is None else plan.blocks * plan.stride
            self._all_parts[fused] = self._stream.zeros(max(1, size), self._network.dtype)
        self._parts = self._all_parts[fused]

    def _laid_out_shares(self) -> tuple[dict[int, tuple[int, int, int, int]], int]:
        """Choose how many blocks share a batch in each kernel's gradient, and where they leave their parts.

        Returns
        -------
        shares : dict
            Of each dense row: where the first part is, elements between them, how many there are, rows of each.
        size : int
            Elements of all.
        """
        shares, end = {}, 0
        for index, row in enumerate(self._network.layers):
            if kind_of(row) is DENSE:
                tiles = -(-int(row["n_in"]) // TILE) * -(-int(row["n_out"]) // TILE)
                depth = self._batch * int(row["positions"])
                count = max(1, min(-(-FULL // tiles), -(-depth // LEAST_SHARE)))
                share, stride = -(-depth // count), (int(row["n_in"]) + 1) * int(row["ld_out"])
                shares[index] = (end, stride, -(-depth // share), share)
                end += stride * shares[index][2]
        return shares, end

    def _parts_by_offset(self) -> dict[int, tuple[int, int, int]]:
        """Return the parts of each dense row's gradients, by the parameter's offset: as `_laid_out_shares` has them."""
        plan = self._plan
        if plan is not None:
            rows, names = zip(self._host_layers, plan.places, strict=True), ("kernel", "bias")
            found = [(int(row[name]), int(place[name])) for row, place in rows for name in names]
            return {offset: (at, plan.stride, plan.blocks) for offset, at in found if at >= 0}
        parts = {}
        for index, (start, stride, count, _) in self._shares.items():
            row = self._network.layers[index]
            parts[int(row["kernel"])] = start, stride, count
            parts[int(row["bias"])] = start + stride - int(row["ld_out"]), stride, count
        return parts

    @property
    def nbytes(self) -> int:
        """Bytes on the device beside gradients and slots."""
        arrays = (self.work, self._values, self._order, *self._all_parts.values(), self._params, self._rounded)
        return sum(int(array.nbytes) for array in arrays)

    def places(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Return which rows of data are ``first``.. of the epoch that the run's record names, shuffled or not."""
        if not self._layout.run["shuffle"][0]:
            return np.arange(first, first + count)
        self._stream.write(self._run, self._layout.run)
        order = self._stream.empty(count, np.int64)
        self._go(self._common.place, count, self._run, first, order)
        return self._stream.read(order)

    def begin(self, phases: Any, layers: Any, state: Any, hypers: Any, rates: Any, data: Any) -> tuple[Any, ...]:
        """Bring a run's data to the device; return what its launches depend on besides."""
        network, write = self._network, self._stream.write
        self._choose(layers, is_whole(phases, layers))
        self._learns = any(phase["kind"] == SLABS and phase["flags"] & GRADIENT for phase in phases)
        if self._learns:
            self._take_parts()
        self._data = data
        if len(hypers) > self._steps:
            self._steps = len(hypers)
            self._totals = self._stream.zeros((self._steps, self._columns), np.float64)
            self._hypers = self._stream.zeros((self._steps, hypers.shape[1]), np.float64)
            self._rates = self._stream.zeros((self._steps, 2), np.float64)
        write(self._totals[: len(hypers)], np.zeros((len(hypers), self._columns)))
        write(self._hypers[: len(hypers)], hypers)
        write(self._rates[: len(hypers)], rates)
        write(self._params, network.params)
        write(self._state, state)
        write(self._run, self._layout.run)
        write(self._cursor, np.zeros(CURSOR, np.int64))
        write(self._pieces, self._pieces_now()[0])
        if (mask := network.held_mask()).size:
            if self._mask.size != mask.size:
                self._mask = self._stream.zeros(mask.size, network.dtype)
            write(self._mask, mask)
        self._layers, self._slab_table = self._table(layers), self._table(network.slabs)
        if network.rounds_kernels:
            self._round()
        run = self._layout.run
        self._penalised, self._clip = bool(run["penalties"][0]), int(run["clip"][0])
        return self._steps, network.mask is None, self._clip, self._penalised, data

    def _table(self, rows: npt.NDArray[Any]) -> Any:
        """Return a table on the device, which is copied there once; one without rows gets one."""
        key = rows.dtype, rows.tobytes()
        if key not in self._tables:
            self._tables[key] = self._stream.to_device(rows if rows.size else np.zeros(1, rows.dtype))
        return self._tables[key]

    def _pieces_now(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the parameter tensors as the update reads them, and which of them each parameter is in."""
        network = self._network
        segments = network.segments
        pieces = np.zeros(len(segments), PIECE)
        for name in ("offset", "length", "trainable", "l1", "l2", "decay"):
            pieces[name] = segments[name]
        at = {int(offset): k for k, offset in enumerate(segments["offset"])}
        piece_of = np.full(network.params.size, -1, np.int32)
        for k, segment in enumerate(segments):
            piece_of[int(segment["offset"]) : int(segment["offset"] + segment["length"])] = k
        for offset, (first, stride, count) in self._parts_by_offset().items():
            if offset >= 0:
                piece = at[offset]
                pieces[piece]["at"], pieces[piece]["stride"], pieces[piece]["shares"] = first, stride, count
        for slab in network.slabs[network.slabs["first"] == FACTORS]:
            pieces[int(slab["segment"])]["decay"] = 0.0
        return pieces, piece_of

    def end(self, state: Any, count: int, params: bool) -> npt.NDArray[np.float64]:
        """Bring a run's results back; return its totals."""
        read = self._stream.read
        read(self._cursor, self.cursor_now)  # where something has failed this does, before a weight is written
        totals = read(self._totals)[:count]
        read(self._state, state)
        if params:
            read(self._params, self._network.params)
        return totals

    def step(self, phases: npt.NDArray[Any]) -> None:
        """Launch what a step is made of."""
        run, cursor, layers = self._run, self._cursor, self._layers
        for phase in phases:
            kind, index = int(phase["kind"]), int(phase["forward"])
            if kind == ROWS and self._plan is not None:
                keeps = not any(p["kind"] == SLABS and p["flags"] & UPDATE for p in phases)
                self._whole_rows(self._plan, (BACKWARD if self._learns else 0) | (KEEP if keeps else 0))
            elif kind == ROWS:
                self._rows(phase)
            elif kind in (STATISTICS, SUMS):
                made = self._common.statistics if kind == STATISTICS else self._common.sums
                self._go(made, int(self._host_layers[index]["n_in"]), run, cursor, layers, index, self.work)
            elif kind != TRANSPOSES:
                self._slabs(int(phase["flags"]))
        self._single(
            self._common.finish, SUM_THREADS, run, cursor, layers, self.work, self._values, self._columns, self._totals,
            self._plan is not None, self._penalised and self._learns, self._sums,
        )  # fmt: skip

    def _go(self, kernel: Any, pieces: int, *arguments: Any) -> None:
        blocks, threads = spread(pieces)
        kernel[blocks, threads, self._stream.stream](*arguments)

    def _single(self, kernel: Any, threads: int, *arguments: Any, blocks: int = 1) -> None:
        kernel[blocks, threads, self._stream.stream](*arguments)

    def _whole_rows(self, plan: Plan, flags: int) -> None:
        """Launch what takes a batch forward, to its losses, and back to the parts of its gradients."""
        train, data = self.kernels.train(plan.tile), self._data
        train[plan.blocks, plan.tile.threads, self._stream.stream, plan.shared](
            self._run, self._cursor, self._layers, self._table(plan.fusion), self._table(plan.places), self._metrics,
            self._params, data.x, data.y, data.weights, data.target_columns, data.weighted, self._order, self.work,
            self._values, self._parts, flags,
        )  # fmt: skip

    def _rows(self, phase: Any) -> None:
        kernels, common = self.kernels, self._common
        run, cursor, layers = self._run, self._cursor, self._layers
        first, last = self._host_layers[0], self._host_layers[-1]
        if phase["flags"] & GATHER:
            data = self._data
            columns = max(int(first["n_in"] * first["positions"]), data.target_columns)
            self._go(common.choose, self._batch, run, cursor, self._order)
            self._go(
                common.gather, self._batch * columns,
                run, cursor, layers, self._order, data.x, data.y, data.weights, data.target_columns, data.weighted,
                self.work,
            )  # fmt: skip
        for index in range(int(phase["forward"]), int(phase["forward_end"])):
            self._forward(index, self._fused and index == len(self._host_layers) - 1)
        if phase["flags"] & LOSS:
            rows = self._batch * int(last["positions_out"])
            self._go(kernels.lose, rows, run, cursor, layers, self._metrics, self.work, self._values)
            values, columns = self._values, self._columns
            self._single(common.add_up, SUM_THREADS, run, cursor, layers, self.work, values, columns, self._totals)
        for index in range(int(phase["backward_end"]) - 1, int(phase["backward"]) - 1, -1):
            self._backward(index, self._fused and index == len(self._host_layers) - 1)

    def _forward(self, index: int, linear: bool) -> None:
        kernels, run, cursor, layers = self.kernels, self._run, self._cursor, self._layers
        row = self._host_layers[index]
        m, n = self._batch * int(row["positions"]), int(row["n_out"])
        values = self._rounded if self._network.rounds_kernels else self._params
        bounded = row["lower"] != -np.inf or row["upper"] != np.inf
        kind, rowwise = kind_of(row), self._network.activation_of(row).rowwise
        if kind is DENSE:
            number = self._network.dtype.type
            low, high = (number(-np.inf), number(np.inf)) if linear else (number(row["lower"]), number(row["upper"]))
            self._multiply(
                self._common.products.forward, (m, n), 1,
                (self.work, self._at(row, "input"), row["ld_in"]), (values, row["kernel"], row["ld_out"]),
                (self.work, self._at(row, "pre"), row["ld_out"]), (0, n, row["n_in"], row["positions"]),
                (values, row["start"], low, high),
            )  # fmt: skip
            if row["activation"] > RELU and not linear and not bounded:
                self._go(kernels.activate, m * n, run, cursor, layers, index, row["pre"], False, rowwise, self.work)
        elif kind is ACTIVATION:
            self._go(kernels.activate, m * n, run, cursor, layers, index, row["input"], linear, rowwise, self.work)
        else:
            self._go(kernels.forward, self._batch, run, cursor, layers, index, linear, values, self.work)

    def _backward(self, index: int, linear: bool) -> None:
        kernels, run, cursor, layers = self.kernels, self._run, self._cursor, self._layers
        row = self._host_layers[index]
        flags, m, n = int(row["flags"]), self._batch * int(row["positions"]), int(row["n_in"])
        values = self._rounded if self._network.rounds_kernels else self._params
        if flags & IDLE:
            return
        if kind_of(row) is not DENSE:
            self._go(kernels.backward, self._batch, run, cursor, layers, index, linear, values, self.work)
            return
        if row["activation"] > 0 and not linear and not flags & DELTA_GATED:
            rowwise = self._network.activation_of(row).rowwise
            self._go(kernels.differentiate, m * int(row["n_out"]), run, cursor, layers, index, rowwise, self.work)
        if not flags & NO_DELTA:
            deltas = int(self._layout.run["deltas"][0])
            source = self._at(row, "input")
            self._multiply(
                self._common.products.backward, (m, n), 1,
                (self.work, deltas + self._at(row, "output"), row["ld_out"]), (values, row["kernel"], row["ld_out"]),
                (self.work, deltas + source, row["ld_in"]), (0, n, row["n_out"], row["positions"]),
                (source if flags & GATE_DELTA else -1, bool(flags & ADD_DELTA)),
            )  # fmt: skip

    def _at(self, row: Any, name: str) -> int:
        return int(row[name]) * self._batch

    def _multiply(
        self, kernel: Any, shape: tuple[int, int], shares: int, a: Any, b: Any, c: Any, sizes: Any, rest: Any
    ) -> None:
        """Launch a product: operands as (array, place, elements between rows), sizes as (m, n, depth, positions)."""
        grid = (-(-shape[0] // TILE) * -(-shape[1] // TILE), shares)  # the second is of 65535 at most
        arguments = (self._run, self._cursor, *a, *b, *c, *sizes, *rest)
        kernel[grid, THREADS_OF_TILE, self._stream.stream](*arguments)

    def _slabs(self, flags: int) -> None:
        kernels, run, cursor, layers, network = self.kernels, self._run, self._cursor, self._layers, self._network
        if flags & GRADIENT:
            if self._plan is None:
                self._gradients()
            if self._penalised:
                pieces = len(network.segments)
                self._single(
                    self._common.penalise, SUM_THREADS, cursor, self._pieces, self._params, self._sums, blocks=pieces
                )
        self._go(
            kernels.step, network.params.size, run, cursor, flags, self._pieces, self._piece_of, self._parts,
            self._params, self._state, self._mask, network.mask is not None, self._sums, self._hypers, self._rates,
        )  # fmt: skip
        if flags & CLIP and self._clip >= CLIP_NORM:
            self._single(self._common.measure, SUM_THREADS, run, cursor, self._pieces, self._state, self._sums)
        if flags & UPDATE:
            for slab in network.slabs:
                index = int(slab["layer"])
                if slab["first"] == MOVING and kind_of(self._host_layers[index]).move is not None:
                    self._single(self._common.move, 1, run, cursor, layers, index, self._params, self.work)
            if network.rounds_kernels:
                self._round()

    def _gradients(self) -> None:
        network, segments = self._network, self._network.segments
        learns = set(segments["offset"][segments["trainable"] != 0].tolist())
        deltas = int(self._layout.run["deltas"][0])
        for index, (start, stride, shares, share) in self._shares.items():
            row = self._host_layers[index]
            if int(row["kernel"]) in learns or int(row["bias"]) in learns:
                n_in, n_out, ld_in, ld_out = (int(row[name]) for name in ("n_in", "n_out", "ld_in", "ld_out"))
                self._multiply(
                    self._common.products.gradient, (n_in, n_out), shares,
                    (self.work, self._at(row, "input"), ld_in), (self.work, deltas + self._at(row, "output"), ld_out),
                    (self._parts, start, ld_out), (n_in, n_out, 0, row["positions"]),
                    (start + n_in * ld_out if row["bias"] >= 0 else -1, share, stride),
                )  # fmt: skip
        for place, slab in enumerate(network.slabs):
            row, first = self._host_layers[int(slab["layer"])], int(slab["first"])
            if kind_of(row) is DENSE or first == MOVING or not segments[slab["segment"]]["trainable"]:
                continue
            low, alone = int(row["bias"] if first == BIAS else row["kernel"]), kind_of(row).gradient is not None
            arguments = (self._run, self._cursor, self._layers, self._slab_table, place, low, alone)
            self._go(self._common.fill, 1 if alone else int(row["n_out"]), *arguments, self.work, self._state)

    def _round(self) -> None:
        """Bring the copy of the parameters with rounded kernels up to date."""
        layers, arrays = self._host_layers, (self._params, self._rounded)
        dense = [i for i, row in enumerate(layers) if kind_of(row) is DENSE and row["scales"] >= 0]
        for index, count in ((-2, self._network.params.size), *((i, int(layers[i]["n_in"])) for i in dense), (-1, 1)):
            self._go(self._common.round_parameters, count, self._cursor, self._layers, index, *arrays)
