"""The work on a batch besides products: gathering, activations, other layers, the loss, sums.

Kernels here call the engine's own functions. Elementwise work is spread over elements; what the engine does to a whole
row of data (norms, dropout, sums of two layers, losses) is done by a thread for each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda, float64

from nbdense.backends.cuda.device import SIMULATED, device_function, kernel
from nbdense.backends.cuda.translation import Translation
from nbdense.engine.elementwise import activation_loops, custom, loss
from nbdense.engine.elementwise.activations import SOFTMAX
from nbdense.engine.kernels import random
from nbdense.engine.rows import ACTIVITY, dispatch
from nbdense.engine.tables import CLIP_GLOBAL_NORM, DROPOUT_STREAM, SHUFFLE_STREAM

# Of a cursor: the step of the run that is under way; whether a loss was not finite, which ends it; whether one of this
# step is not, where losses are added up behind the update.
STEP, STOPPED, SPOILED = range(3)
CURSOR = 3
SUM_THREADS = 4 if SIMULATED else 256  # of a block that adds up


@device_function
def rows_of_batch(run, cursor):
    """Return (first row, rows) of the batch of the step under way: no rows once a loss was not finite."""
    start = (run[0]["first_step"] + cursor[STEP]) * run[0]["batch"]
    rows = min(run[0]["batch"], run[0]["rows"] - start)
    return start, 0 if cursor[STOPPED] != 0 else rows


@device_function
def block_sum(parts, value):
    """Add up a number of each thread of the block, in an order of its own, the same each time; all get the sum."""
    thread = cuda.threadIdx.x
    cuda.syncthreads()
    parts[thread] = value
    cuda.syncthreads()
    half = SUM_THREADS // 2
    while half > 0:
        if thread < half:
            parts[thread] += parts[thread + half]
        cuda.syncthreads()
        half //= 2
    return parts[0]


@device_function
def taken(data, order, pieces, i, n, j):
    """Return column j of the batch's row of n columns i, from rows of data of ``pieces`` such each."""
    return data[order[i // pieces], i % pieces * n + j]


def placing(translate: Translation) -> Any:
    """Return the function that writes to order[i] which row of data is the epoch's ``at``."""
    key_of, shuffled = translate(random.key_of), translate(random.shuffled)

    @device_function
    def write_place(run, at, order, i):
        if run[0]["shuffle"] != 0:
            shuffled(key_of(run[0]["seed"], SHUFFLE_STREAM, run[0]["epoch"]), run[0]["rows"], at, 1, order, i)
        else:
            order[i] = at

    return write_place


def gathering(translate: Translation) -> tuple[Any, Any, Any]:
    """Return the kernels that choose a batch's rows, or an epoch's from ``first`` on, and that bring a batch in."""
    write_place = placing(translate)

    @kernel
    def choose(run, cursor, order):
        start, rows = rows_of_batch(run, cursor)
        for i in range(cuda.grid(1), rows, cuda.gridsize(1)):
            write_place(run, start + i, order, i)

    @kernel
    def place(run, first, order):
        for i in range(cuda.grid(1), order.size, cuda.gridsize(1)):
            write_place(run, first + i, order, i)

    @kernel
    def gather(run, cursor, layers, order, x, y, weights, targets, weighted, work):
        _, rows = rows_of_batch(run, cursor)
        first, last = layers[0], layers[layers.shape[0] - 1]
        here, step = cuda.grid(1), cuda.gridsize(1)
        pieces, n = first["positions"], first["n_in"]
        for e in range(here, rows * pieces * n, step):
            work[e // n * first["ld_in"] + e % n] = taken(x, order, pieces, e // n, n, e % n)
        pieces = last["positions_out"]
        n = targets // pieces
        for e in range(here, rows * pieces * n, step):
            work[run[0]["targets"] + e // n * run[0]["ld_target"] + e % n] = taken(y, order, pieces, e // n, n, e % n)
        for e in range(here, rows * pieces, step):
            work[run[0]["weights"] + e] = weights[order[e // pieces], 0] if weighted else 1.0

    return choose, place, gather


def differentiating(translate: Translation) -> Any:
    """Return the function that multiplies an element's delta by the derivative of its row's activation."""
    call = translate(custom.call_loop)

    @device_function
    def differentiate_element(row, work, at_z, at_a, at_d):
        if row["call_backward"] != 0:
            call(row["call_backward"], work, at_z, at_a, at_d, 1, row["alpha"], row["beta"], row["gamma"])
        elif row["activation"] > 0:  # a clamp
            a = work[at_a]
            inside = a > row["lower"] and (a < row["upper"] or row["upper"] == np.inf)
            work[at_d] *= work.dtype.type(1.0 if inside else 0.0)

    return differentiate_element


def activating(translate: Translation) -> tuple[Any, Any]:
    """Return the kernels of activations, forward and backward: a thread for each element, or for each whole row."""
    activate_row, differentiate_row = (
        translate(activation_loops.activate_row),
        translate(activation_loops.differentiate),
    )
    copy, call = translate(activation_loops.copy_block), translate(custom.call_loop)
    differentiate_element = differentiating(translate)

    @device_function
    def activate_element(row, work, at):
        value = work[at]
        if row["call_forward"] != 0:
            call(row["call_forward"], work, at, at, at, 1, row["alpha"], row["beta"], row["gamma"])
        elif row["lower"] != -np.inf or row["upper"] != np.inf:
            value = work.dtype.type(row["lower"]) if value < row["lower"] else value
            work[at] = work.dtype.type(row["upper"]) if value > row["upper"] else value

    @kernel
    def apply(run, cursor, layers, index, source, linear, rowwise, work):
        """Apply a row's activation from the buffer ``source`` to its output."""
        row, capacity = layers[index], run[0]["batch"]
        m, n, ld = rows_of_batch(run, cursor)[1] * row["positions"], row["n_out"], row["ld_out"]
        source, output = source * capacity, row["output"] * capacity
        whole = rowwise and not linear
        columns = 1 if whole else n
        for e in range(cuda.grid(1), m * columns, cuda.gridsize(1)):
            at = e // columns * ld + e % columns
            if whole:
                if source != output:
                    copy(work, source + at, output + at, n)
                activate_row(row, work, output + at, 1)
            else:
                work[output + at] = work[source + at]
                if not linear:
                    activate_element(row, work, output + at)

    @kernel
    def differentiate(run, cursor, layers, index, rowwise, work):
        """Turn the deltas of a dense row's outputs into those of its products."""
        row, capacity = layers[index], run[0]["batch"]
        m, n, ld = rows_of_batch(run, cursor)[1] * row["positions"], row["n_out"], row["ld_out"]
        pre, output = row["pre"] * capacity, row["output"] * capacity
        deltas = run[0]["deltas"] + row["output"] * capacity
        columns = 1 if rowwise else n
        for e in range(cuda.grid(1), m * columns, cuda.gridsize(1)):
            at = e // columns * ld + e % columns
            if rowwise:
                differentiate_row(row, work, pre + at, output + at, deltas + at, 1)
            else:
                differentiate_element(row, work, pre + at, output + at, deltas + at)

    return apply, differentiate


def walking(translate: Translation) -> tuple[Any, Any]:
    """Return the kernels that take each row of data through a row of the table that is no product."""
    forward_row, backward_row = translate(dispatch.forward_row), translate(dispatch.backward_row)
    key_of = translate(random.key_of)

    @kernel
    def forward(run, cursor, layers, index, linear, params, work):
        _, rows = rows_of_batch(run, cursor)
        noise = key_of(run[0]["seed"], DROPOUT_STREAM, run[0]["iteration"] + cursor[STEP] + 1)
        x, aside = (work, 0, layers[0]["ld_in"]), run[0]["aside"]
        for i in range(cuda.grid(1), rows, cuda.gridsize(1)):
            forward_row(layers[index], params, x, work, run[0]["batch"], (i, 1), linear, aside, noise)

    @kernel
    def backward(run, cursor, layers, index, linear, params, work):
        _, rows = rows_of_batch(run, cursor)
        row, deltas, aside, zeros = layers[index], run[0]["deltas"], run[0]["aside"], run[0]["zeros"]
        for i in range(cuda.grid(1), rows, cuda.gridsize(1)):
            backward_row(row, params, work, run[0]["batch"], (i, 1), linear, deltas, aside, zeros, rows)

    return forward, backward


def statistics(translate: Translation) -> tuple[Any, Any]:
    """Return the kernels that take a batch norm's statistics, and the sums of its deltas: a thread for each column."""
    moments, sums_of = translate(dispatch.column_statistics), translate(dispatch.column_sums)

    @kernel
    def take(run, cursor, layers, index, work):
        row, capacity = layers[index], run[0]["batch"]
        m, aside = rows_of_batch(run, cursor)[1] * row["positions"], run[0]["aside"] + row["transposed"]
        for j in range(cuda.grid(1), row["n_in"] if m > 0 else 0, cuda.gridsize(1)):
            moments(row, work, aside, row["input"] * capacity, m, j, j + 1)

    @kernel
    def sums(run, cursor, layers, index, work):
        row, capacity = layers[index], run[0]["batch"]
        m, aside = rows_of_batch(run, cursor)[1] * row["positions"], run[0]["aside"] + row["transposed"]
        deltas = run[0]["deltas"] + row["output"] * capacity
        for j in range(cuda.grid(1), row["n_in"] if m > 0 else 0, cuda.gridsize(1)):
            sums_of(row, work, aside, row["pre"] * capacity, deltas, m, j, j + 1)

    return take, sums


def losing_row(translate: Translation) -> Any:
    """Return the function that computes loss and metrics of a row of outputs, and its deltas.

    Metrics read what the model puts out; ``i`` is the row of the batch's m.
    """
    losses_of_rows, metric_of_row = translate(loss.losses_of_rows), translate(loss.metric_of_row)
    activate_row = translate(activation_loops.activate_row)

    @device_function
    def measure(row, run, work, y, t, metrics, values):
        for k in range(values.size - 1):
            values[1 + k] = metric_of_row(metrics[k], work, y, t, row["n_out"])

    @device_function
    def lose_row(run, row, metrics, work, values, i, m):
        fused, columns = run[0]["fused"] != 0, metrics.size
        form = (run[0]["loss"], run[0]["loss_parameter"], run[0]["sparse"] != 0, run[0]["loss_call"])
        shape = (1, row["n_out"], row["ld_out"], run[0]["ld_target"], m)
        y = row["output"] * run[0]["batch"] + i * row["ld_out"]
        t = run[0]["targets"] + i * run[0]["ld_target"]
        mine = values[i * columns : (i + 1) * columns]
        if not fused:
            measure(row, run, work, y, t, metrics, mine)
        rows = (y, t, run[0]["deltas"] + y, run[0]["weights"] + i, run[0]["room"] + i)
        losses_of_rows(form, work, rows, shape, mine, 1)
        if fused:
            if row["activation"] != SOFTMAX and columns > 1:
                activate_row(row, work, y, 1)
            measure(row, run, work, y, t, metrics, mine)

    return lose_row


def losing(translate: Translation) -> Any:
    """Return the kernel of losses and metrics of each row of outputs, and of the deltas."""
    lose_row = losing_row(translate)

    @kernel
    def lose(run, cursor, layers, metrics, work, values):
        row = layers[layers.shape[0] - 1]
        m = rows_of_batch(run, cursor)[1] * row["positions_out"]
        for i in range(cuda.grid(1), m, cuda.gridsize(1)):
            lose_row(run, row, metrics, work, values, i, m)

    return lose


def adding_up() -> tuple[Any, Any]:
    """Return the kernel of a batch's sums of losses and metrics, and the one that ends a step: a single block each."""
    activity, l1, l2 = ACTIVITY.code, *(ACTIVITY.settings[name] for name in ("l1", "l2"))

    @device_function
    def penalties(layers, work, capacity, rows):
        """Return a thread's share of what activities add to the loss: of elements of rows of data."""
        total = 0.0
        for index in range(layers.shape[0]):
            row = layers[index]
            if row["kind"] == activity:
                start = row["output"] * capacity
                for i in range(cuda.threadIdx.x, rows * row["positions"] * row["ld_out"], SUM_THREADS):
                    a = np.float64(work[start + i])
                    total += row[l1] * abs(a) + row[l2] * a * a
        return total

    @device_function
    def sum_up(parts, run, cursor, layers, work, values, columns, totals):
        """Sum losses and metrics over the batch; a sum of losses that is not finite stops the run."""
        positions, rows = layers[layers.shape[0] - 1]["positions_out"], rows_of_batch(run, cursor)[1]
        m = rows * positions
        if m == 0:
            return
        for k in range(columns):
            mine = penalties(layers, work, run[0]["batch"], rows) * positions if k == 0 else 0.0
            for i in range(cuda.threadIdx.x, m, SUM_THREADS):
                mine += values[i * columns + k]
            total = block_sum(parts, mine)
            if cuda.threadIdx.x == 0:
                totals[cursor[STEP], k] = total
                if k == 0 and not math.isfinite(total):
                    cursor[STOPPED] = 1

    @kernel
    def add_up(run, cursor, layers, work, values, columns, totals):
        parts = cuda.shared.array(SUM_THREADS, float64)
        sum_up(parts, run, cursor, layers, work, values, columns, totals)

    @kernel
    def finish(run, cursor, layers, work, values, columns, totals, late, penalised, sums):
        """End a step; where its losses are to be added up so ``late``, do that first."""
        parts = cuda.shared.array(SUM_THREADS, float64)
        if late:
            sum_up(parts, run, cursor, layers, work, values, columns, totals)
        if cuda.threadIdx.x == 0 and cursor[STOPPED] == 0:
            if penalised:
                rows = rows_of_batch(run, cursor)[1] * layers[layers.shape[0] - 1]["positions_out"]
                penalty = 0.0
                for k in range(sums.shape[0]):
                    penalty += sums[k, 0]
                totals[cursor[STEP], 0] += penalty * rows
            cursor[STEP] += 1

    return add_up, finish


def summing() -> tuple[Any, Any]:
    """Return the kernels of penalties and of gradients' norms."""

    @kernel
    def penalise(cursor, pieces, params, sums):
        """Sum up each tensor's penalty, a block for each."""
        parts = cuda.shared.array(SUM_THREADS, float64)
        piece = pieces[cuda.blockIdx.x]
        l1, l2, mine = piece["l1"], piece["l2"], 0.0
        if piece["trainable"] != 0 and (l1 != 0.0 or l2 != 0.0):
            for i in range(piece["offset"] + cuda.threadIdx.x, piece["offset"] + piece["length"], SUM_THREADS):
                w = np.float64(params[i])
                mine += (l1 * abs(w) if l1 != 0.0 else 0.0) + (l2 * w * w if l2 != 0.0 else 0.0)
        total = block_sum(parts, mine)
        if cuda.threadIdx.x == 0 and cursor[STOPPED] == 0:
            sums[cuda.blockIdx.x, 0] = total

    @kernel
    def measure(run, cursor, pieces, state, sums):
        """Sum up each gradient's squares, and turn them into the factors that clip it; a single block."""
        parts = cuda.shared.array(SUM_THREADS, float64)
        all_squares = 0.0
        for k in range(pieces.size):
            piece, mine = pieces[k], 0.0
            if piece["trainable"] != 0:
                for i in range(piece["offset"] + cuda.threadIdx.x, piece["offset"] + piece["length"], SUM_THREADS):
                    mine += np.float64(state[0, i]) * np.float64(state[0, i])
            squares = block_sum(parts, mine)
            all_squares += squares
            if cuda.threadIdx.x == 0:
                sums[k, 1] = squares
        most, everywhere = run[0]["clip_at"], run[0]["clip"] == CLIP_GLOBAL_NORM
        if cuda.threadIdx.x == 0 and cursor[STOPPED] == 0:
            for k in range(pieces.size):
                size = math.sqrt(all_squares if everywhere else sums[k, 1])
                sums[k, 1] = most / size if size > most else 1.0

    return penalise, measure
