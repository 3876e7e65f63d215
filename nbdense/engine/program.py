"""The compiled program: walks the layer table, forward, backward and through the update.

``predict`` runs rows forward; ``run_steps`` trains, evaluates or takes gradients over a run of batches. Each is
compiled twice, serial and with its loops over rows and slabs in parallel; both call the same kernels, and no sum is
ever split over threads, so that results do not depend on their number.

A training step has two parallel regions. In the first, each thread takes some rows of the batch from gathering
through the loss back to the deltas of every layer. In the second, each takes some slabs of the kernels: gradient,
optimizer step, and the transpose that the next step's backward pass reads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from nbdense._jit import entry, entry_pair, kernel
from nbdense.activations import RELU, SOFTMAX
from nbdense.engine.activation import BLOCK, activate, differentiate, padded
from nbdense.engine.gather import first_not_finite, gather
from nbdense.engine.loss import losses_of_rows, metric_of_row
from nbdense.engine.microkernel import gated_product, product
from nbdense.engine.optimizer import rate_of_step, update
from nbdense.engine.random import key_of, shuffled
from nbdense.engine.transpose import transpose
from nbdense.network import ADD_DELTA, DELTA_GATED, DENSE, GATE_DELTA, NO_DELTA

# What run_steps is to do with each batch.
EVALUATE, GRADIENT, TRAIN = range(3)
SHUFFLE_STREAM = 1

RUN = np.dtype(
    [
        ("mode", np.int64),
        ("threads", np.int64),
        ("batch", np.int64),
        ("rows", np.int64),
        ("first_step", np.int64),  # of the epoch, from 0
        ("steps", np.int64),
        ("iteration", np.int64),  # optimizer steps taken before these
        ("shuffle", np.int64),
        ("seed", np.int64),
        ("epoch", np.int64),
        ("loss", np.int64),
        ("loss_parameter", np.float64),
        ("sparse", np.int64),
        ("fused", np.int64),  # the loss takes the last layer's pre-activations
        ("optimizer", np.int64),
        # Offsets in the workspace; activations are at 0.
        ("deltas", np.int64),
        ("targets", np.int64),
        ("ld_target", np.int64),
        ("weights", np.int64),  # a number a row; room is space for another
        ("room", np.int64),
        ("transposes", np.int64),
        ("zeros", np.int64),  # as many as the widest row
        ("one", np.int64),  # a single 1
    ]
)

SHARED_KERNEL = 65_536  # elements of a kernel that are worth a parallel region of their own
CHUNK = 96  # rows that predict takes through all layers at a time: the activations stay in the L2 cache


@kernel
def _dense(row, params, x, work, capacity, first, count, linear, column, columns):
    """Columns ``column`` .. ``column + columns`` of a dense row's outputs, up to the clamp of its epilogue."""
    x_array, x_offset, x_row = x
    number = params.dtype.type
    ld_in, ld_out = row["ld_in"], row["ld_out"]
    lower = number(-np.inf) if linear else number(row["lower"])
    upper = number(np.inf) if linear else number(row["upper"])
    if row["input"] == 0:
        a = (x_array, x_offset + first * x_row, x_row, 1)
    else:
        a = (work, row["input"] * capacity + first * ld_in, ld_in, 1)
    b = (params, row["kernel"] + column, ld_out)
    c = (work, row["output"] * capacity + first * ld_out + column, ld_out)
    start = (params, row["start"] + column, 0)
    product(count, columns, row["n_in"], a, b, start, c, lower, upper)


@kernel
def _activate(row, work, capacity, first, count):
    if row["activation"] > RELU:  # linear and relu were done in the product
        output = row["output"] * capacity + first * row["ld_out"]
        activate(row["activation"], row["alpha"], work, output, row["ld_out"], count, row["n_out"])


@kernel
def forward(layers, params, x, work, capacity, first, count, skip_last_activation):
    """Rows first..first+count through all layers; ``x`` is the operand of the network's input."""
    for index in range(layers.shape[0]):
        row = layers[index]
        if row["kind"] == DENSE:
            linear = skip_last_activation and index == layers.shape[0] - 1
            _dense(row, params, x, work, capacity, first, count, linear, 0, row["n_out"])
            if not linear:
                _activate(row, work, capacity, first, count)


@kernel
def backward(layers, work, run, capacity, first, count):
    """The deltas of rows first..first+count, from the last layer's outputs to the first layer that learns."""
    deltas = run["deltas"]
    for index in range(layers.shape[0] - 1, -1, -1):
        row = layers[index]
        if row["kind"] == DENSE:
            ld_in, ld_out = row["ld_in"], row["ld_out"]
            output = row["output"] * capacity + first * ld_out
            fused = run["fused"] and index == layers.shape[0] - 1
            if row["activation"] > 0 and not fused and row["flags"] & DELTA_GATED == 0:
                differentiate(
                    row["activation"], row["alpha"], work, output, deltas + output, ld_out, count, row["n_out"]
                )
            if row["flags"] & NO_DELTA == 0:
                source = row["input"] * capacity + first * ld_in
                target = (work, deltas + source, ld_in)
                start = target if row["flags"] & ADD_DELTA else (work, run["zeros"], 0)
                gate = (work, source, ld_in) if row["flags"] & GATE_DELTA else (work, -1, 0)
                d = (work, deltas + output, ld_out, 1)
                kernel_t = (work, run["transposes"] + row["transposed"], ld_in)
                gated_product(count, row["n_in"], row["n_out"], d, kernel_t, start, target, gate)


@kernel
def slab_gradient(layers, state, work, run, capacity, count, slab):
    """One slab's gradient into state[0]; returns its range of the parameter vector."""
    number = work.dtype.type
    row = layers[slab["layer"]]
    ld_in, ld_out = row["ld_in"], row["ld_out"]
    deltas = run["deltas"] + row["output"] * capacity
    if slab["first"] < 0:  # a bias: the sum of the deltas' rows, as a product with a row of ones
        rows, low, high = 1, row["bias"], row["bias"] + ld_out
        x = (work, run["one"], 0, 0)
    else:
        rows = slab["last"] - slab["first"]
        low, high = row["kernel"] + slab["first"] * ld_out, row["kernel"] + slab["last"] * ld_out
        x = (work, row["input"] * capacity + slab["first"], 1, ld_in)
    d, zeros, g = (work, deltas, ld_out), (work, run["zeros"], 0), (state[0], low, ld_out)
    product(rows, row["n_out"], count, x, d, zeros, g, number(-np.inf), number(np.inf))
    return low, high


@kernel
def _metrics_of_rows(layers, scratch, run, capacity, first, count):
    work, values, _, metrics, _ = scratch
    row = layers[layers.shape[0] - 1]
    columns = 1 + metrics.size
    for i in range(first, first + count):
        y = row["output"] * capacity + i * row["ld_out"]
        t = run["targets"] + i * run["ld_target"]
        for k in range(metrics.size):
            values[i * columns + 1 + k] = metric_of_row(metrics[k], work, y, t, row["n_out"])


@kernel
def _losses_of_rows(layers, scratch, run, capacity, first, count, batch):
    work, values, _, metrics, _ = scratch
    row = layers[layers.shape[0] - 1]
    stride = 1 + metrics.size
    y = row["output"] * capacity + first * row["ld_out"]
    t = run["targets"] + first * run["ld_target"]
    rows = (y, t, run["deltas"] + y, run["weights"] + first, run["room"] + first)
    shape = (count, row["n_out"], row["ld_out"], run["ld_target"], batch)
    losses = values[first * stride :]
    losses_of_rows(run["loss"], run["loss_parameter"], run["sparse"] != 0, work, rows, shape, losses, stride)


@kernel
def _choose_rows(scratch, run, key, start, first, count):
    """Which rows of the data set are the batch's rows first..first+count."""
    order = scratch[4]
    if run["shuffle"]:
        shuffled(key, run["rows"], start + first, count, order, first)
    else:
        for i in range(first, first + count):
            order[i] = start + i


@kernel
def _work_on_rows(tables, vectors, scratch, data, run, capacity, first, count, batch):
    """One thread's rows of a batch: gather, forward, loss, backward."""
    layers, _ = tables
    work, _, _, metrics, order = scratch
    x, x_form, y, y_form, w, w_form = data
    last = layers[layers.shape[0] - 1]
    ld_in, ld_target = layers[0]["ld_in"], run["ld_target"]
    places = order[first : first + count]
    gather(x, x_form[0], places, count, work, first * ld_in, ld_in)
    gather(y, y_form[0], places, count, work, run["targets"] + first * ld_target, ld_target)
    if w_form[0]["rows"] > 0:
        gather(w, w_form[0], places, count, work, run["weights"] + first, 1)
    else:
        for i in range(count):
            work[run["weights"] + first + i] = 1.0
    fused = run["fused"] != 0
    forward(layers, vectors[0], (work, 0, ld_in), work, capacity, first, count, fused)
    # Metrics read what the model puts out; the loss from logits overwrites logits with probabilities.
    if not fused:
        _metrics_of_rows(layers, scratch, run, capacity, first, count)
    _losses_of_rows(layers, scratch, run, capacity, first, count, batch)
    if fused:
        if last["activation"] != SOFTMAX and metrics.size > 0:
            _activate(last, work, capacity, first, count)
        _metrics_of_rows(layers, scratch, run, capacity, first, count)
    if run["mode"] != EVALUATE:
        backward(layers, work, run, capacity, first, count)


@kernel
def _work_on_slab(tables, vectors, scratch, run, hyper, rate, capacity, batch, index):
    """One slab: its gradient, the optimizer's step, and its transpose."""
    layers, slabs, segments = tables
    params, state, mask = vectors
    work = scratch[0]
    slab = slabs[index]
    if segments[slab["segment"]]["trainable"] == 0:
        return
    low, high = slab_gradient(layers, state, work, run, capacity, batch, slab)
    if mask.size > 0:
        for i in range(low, high):
            state[0, i] *= mask[i]
    if run["mode"] == TRAIN:
        update(run["optimizer"], params, state, low, high, rate, hyper)
        _refresh(layers, params, work, run, slab)


@kernel
def _work_on_slabs(tables, vectors, scratch, run, hyper, rate, capacity, batch, thread):
    """One thread's share of the slabs: an equal part of all elements, to the nearest slab."""
    slabs = tables[1]
    last = slabs[slabs.size - 1]
    total = last["before"] + 1
    low, high = total * thread // run["threads"], total * (thread + 1) // run["threads"]
    for index in range(slabs.size):
        if low <= slabs[index]["before"] < high:
            _work_on_slab(tables, vectors, scratch, run, hyper, rate, capacity, batch, index)


@kernel
def _refresh(layers, params, work, run, slab):
    """Bring the transpose of one slab of a kernel up to date, if backward reads it."""
    row = layers[slab["layer"]]
    if slab["first"] < 0 or row["flags"] & NO_DELTA:
        return
    source = (params, row["kernel"] + slab["first"] * row["ld_out"], row["ld_out"])
    target = (work, run["transposes"] + row["transposed"] + slab["first"], row["ld_in"])
    transpose(source, target, slab["last"] - slab["first"], row["n_out"])


@kernel
def _add_up(scratch, count, step):
    """The batch's losses and metrics, summed over its rows in order, into totals[step]; returns the loss."""
    _, values, totals, metrics, _ = scratch
    columns = 1 + metrics.size
    for k in range(columns):
        total = 0.0
        for i in range(count):
            total += values[i * columns + k]
        totals[step, k] = total
    return totals[step, 0]


def _run_steps(tables, vectors, scratch, data, runs, settings):
    """Work through batches ``first_step`` .. ``first_step + steps`` of an epoch; returns how many were finished.

    tables : (layers, slabs, segments); vectors : (params, state, mask), state[0] the gradients, then
        the optimizer's slots; a mask of no elements is none
    scratch : (work, values, totals, metrics, order), the caller's memory; totals takes a row a step: sums over the
        batch's rows of loss and metrics
    data : (x, x_form, y, y_form, w, w_form), sources as in engine.gather; a w of no rows weighs all alike
    runs : one `RUN`; settings : (hyper, rates), a learning rate a step

    A step whose loss is not finite ends the run before it changes a parameter.
    """
    run = runs[0]
    layers, slabs, segments = tables
    work = scratch[0]
    hyper, rates = settings
    threads, capacity, rows = run["threads"], run["batch"], run["rows"]
    key = key_of(run["seed"], SHUFFLE_STREAM, run["epoch"])
    if run["mode"] != EVALUATE:
        for index in prange(slabs.size):
            _refresh(layers, vectors[0], work, runs[0], slabs[index])
    for step in range(run["steps"]):
        start = (run["first_step"] + step) * capacity
        batch = min(capacity, rows - start)
        share = (batch + threads - 1) // threads
        for thread in prange(threads):
            first = thread * share
            count = min(share, batch - first)
            if count > 0:
                _choose_rows(scratch, runs[0], key, start, first, count)
                _work_on_rows((layers, slabs), vectors, scratch, data, runs[0], capacity, first, count, batch)
        if not math.isfinite(_add_up(scratch, batch, step)):
            return step
        if run["mode"] != EVALUATE:
            rate = rate_of_step(run["optimizer"], rates[step], run["iteration"] + step + 1, hyper)
            for thread in prange(threads):
                _work_on_slabs(tables, vectors, scratch, runs[0], hyper, rate, capacity, batch, thread)
    return run["steps"]


def _predict(layers, params, x, out, width, threads, by_columns):
    """Outputs of all rows of ``x`` into ``out``, both C-ordered matrices in the engine's dtype.

    ``width`` is the workspace's columns. Threads take rows, each with a workspace of its own for CHUNK rows at most;
    or, ``by_columns``, units: for so few rows that reading the kernels is what takes the time.
    """
    rows, n_in = x.shape
    flat, flat_out = x.reshape(x.size), out.reshape(out.size)
    if by_columns:
        work = np.empty(width * rows, params.dtype)
        for index in range(layers.shape[0]):
            if layers[index]["n_in"] * layers[index]["n_out"] < SHARED_KERNEL:
                _some_columns(layers, params, (flat, 0, n_in), work, rows, index, 0, 1)
            else:
                for thread in prange(threads):
                    _some_columns(layers, params, (flat, 0, n_in), work, rows, index, thread, threads)
            _activate(layers[index], work, rows, 0, rows)
        _copy_out(layers, work, rows, rows, flat_out, 0)
        return
    share = (rows + threads - 1) // threads
    for thread in prange(threads):
        begin = thread * share
        end = min(rows, begin + share)
        if begin < end:
            capacity = min(CHUNK, end - begin)
            work = np.empty(width * capacity, params.dtype)
            for first in range(begin, end, capacity):
                count = min(capacity, end - first)
                forward(layers, params, (flat, first * n_in, n_in), work, capacity, 0, count, False)
                _copy_out(layers, work, capacity, count, flat_out, first)


@kernel
def _some_columns(layers, params, x, work, rows, index, thread, threads):
    """One thread's share of a layer's units, in whole blocks."""
    row = layers[index]
    blocks = padded(row["n_out"]) // BLOCK
    share = (blocks + threads - 1) // threads * BLOCK
    first = thread * share
    count = min(share, row["n_out"] - first)
    if count > 0:
        _dense(row, params, x, work, rows, 0, rows, False, first, count)


@kernel
def _copy_out(layers, work, capacity, count, out, first):
    row = layers[layers.shape[0] - 1]
    n = row["n_out"]
    for i in range(count):
        source, target = np.uint64(row["output"] * capacity + i * row["ld_out"]), np.uint64((first + i) * n)
        for j in range(n):
            out[target + np.uint64(j)] = work[source + np.uint64(j)]


def _gather_rows(data, form, first, out):
    """Rows first.. of a source into the matrix ``out``, as many as it has."""
    order = np.arange(first, first + out.shape[0])
    gather(data, form[0], order, out.shape[0], out.reshape(out.size), 0, out.shape[1])


def _find_not_finite(data, form, buffer):
    return first_not_finite(data, form[0], buffer)


run_steps = entry_pair(_run_steps)
predict = entry_pair(_predict)
gather_rows = entry(_gather_rows)
find_not_finite = entry(_find_not_finite)
