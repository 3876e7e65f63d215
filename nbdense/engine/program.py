"""The compiled program: walks the layer table, forward, backward and through the update.

``predict`` runs rows forward; ``run_steps`` trains, evaluates or takes gradients over a run of batches. No sum is ever
split over threads, so that results do not depend on their number: one thread does in turn what several do at once.

What a step is made of is data too: a table of phases (see `nbdense.training.phases`), each of which is one parallel
region. A plain network's training step has two. In the first, each thread takes some rows of the batch from gathering
through the loss back to the deltas of every layer. In the second, each takes some slabs of the kernels: gradient,
optimizer step, and the transpose that the next step's backward pass reads. Batch normalisation cuts the first in
pieces, because its statistics need all rows; clipping by a norm cuts the second, because the norm needs all gradients.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbdense._compile.policy import entry, inlined, kernel, region, region_of, unit
from nbdense.engine.elementwise.activation_loops import BLOCK, activate_elements, clear_padding, padded
from nbdense.engine.elementwise.loss import KERNELS, kernel_of, losses_of_rows, metric_of_row
from nbdense.engine.elementwise.optimizer import NADAM, prepare_nadam, rate_of_step
from nbdense.engine.kernels.gather import gather
from nbdense.engine.kernels.random import key_of, shuffled
from nbdense.engine.kernels.scratch import allocate, release
from nbdense.engine.kernels.views import flat, stretch
from nbdense.engine.on_demand import KERNELS as KERNELS_ON_DEMAND
from nbdense.engine.on_demand import address_of, on_demand
from nbdense.engine.rows import ACTIVITY, activity, fake_quant
from nbdense.engine.rows.dense import DENSE, dense, finish_dense
from nbdense.engine.rows.dispatch import backward_row, column_statistics, column_sums, forward_row, set_derivatives
from nbdense.engine.rows.kind import set_addresses as set_addresses_of_kinds
from nbdense.engine.rows.slabs import adjust, follow, set_factors, work_on_slabs
from nbdense.engine.tables import (
    CLIP,
    CLIP_NORM,
    DROPOUT_STREAM,
    GATHER,
    GRADIENT,
    LOSS,
    NO_CLIP,
    ROWS,
    SHUFFLE_STREAM,
    SLABS,
    STATISTICS,
    SUMS,
    TRANSPOSES,
    UPDATE,
)

_DENSE = DENSE.code
SHARED_KERNEL = 65_536  # elements of a kernel that are worth a parallel region of their own


@unit
def forward(layers, params, x, work, capacity, span, begin, end, skip_last_activation, aside, noise):
    """Take a share of the rows of data through rows begin..end of the table; ``x`` is the operand of the input."""
    for index in range(begin, end):
        linear = skip_last_activation and index == layers.shape[0] - 1
        forward_row(layers[index], params, x, work, capacity, span, linear, aside, noise)


@kernel
def _metrics_of_rows(run, layers, work, per_row, metrics, capacity, span):
    row = layers[layers.shape[0] - 1]
    positions, columns = row["positions_out"], 1 + metrics.size
    if run["fused"]:  # the loss has left pre-activations; behind softmax it has made probabilities of them
        at = row["output"] * capacity + span[0] * positions * row["ld_out"]
        activate_elements(row, work, at, span[1] * positions)
    for i in range(span[0] * positions, (span[0] + span[1]) * positions):
        y = row["output"] * capacity + i * row["ld_out"]
        t = run["targets"] + i * run["ld_target"]
        for k in range(metrics.size):
            per_row[i * columns + 1 + k] = metric_of_row(metrics[k], work, y, t, row["n_out"])


@kernel
def _losses_of_rows(layers, scratch, run, capacity, span, batch):
    work, values, _, metrics, _, _ = scratch
    row = layers[layers.shape[0] - 1]
    positions = row["positions_out"]
    first, stride = span[0] * positions, 1 + metrics.size
    y = row["output"] * capacity + first * row["ld_out"]
    t = run["targets"] + first * run["ld_target"]
    places = (y, t, run["deltas"] + y, run["weights"] + first, run["room"] + first)
    shape = (span[1] * positions, row["n_out"], row["ld_out"], run["ld_target"], batch * positions)
    form = (run["loss"], run["loss_parameter"], run["sparse"] != 0, run["loss_call"])
    losses = stretch(values, first * stride, span[1] * positions * stride)
    _losses(run, form, work, places, shape, losses, stride)


@kernel
def _choose_rows(scratch, run, start, span):
    """Choose the rows of the data set that are the batch's rows of the span."""
    first, count = span
    order = scratch[4]
    if run["shuffle"]:
        key = key_of(run["seed"], SHUFFLE_STREAM, run["epoch"])
        shuffled(key, run["rows"], start + first, count, order, first)
    else:
        for i in range(first, first + count):
            order[i] = start + i


@inlined
def _gather_rows_of(layers, scratch, data, run, span):
    """Gather the inputs, targets and weights of a share of the batch."""
    work, order = scratch[0], scratch[4]
    x, x_form, y, y_form, w, w_form = data
    first, count = span
    row, positions = layers[0], layers[layers.shape[0] - 1]["positions_out"]
    ld_target = run["ld_target"]
    places = stretch(order, first, count)
    ld_in = row["ld_in"]
    gather(x, x_form[0], places, count, work, first * row["positions"] * ld_in, ld_in, row["positions"])
    gather(y, y_form[0], places, count, work, run["targets"] + first * positions * ld_target, ld_target, positions)
    weights = run["weights"] + first * positions
    if w_form[0]["rows"] > 0:
        gather(w, w_form[0], places, count, work, weights, positions, np.int64(1))
        for i in range(count):
            for p in range(1, positions):
                work[weights + i * positions + p] = work[weights + i * positions]
    else:
        for i in range(count * positions):
            work[np.uint64(weights) + np.uint64(i)] = 1.0


@kernel
def _are_fit(run, layers, work, span, columns, weighted):
    """Tell whether a share's inputs, targets and weights, as they were gathered, are what the run says of them.

    ``columns`` is the number of a row's targets in all positions; weights are looked at where there are any.
    """
    first, count = span
    row, positions, ld_target = layers[0], layers[layers.shape[0] - 1]["positions_out"], run["ld_target"]
    columns //= positions
    size = row["positions"] * row["ld_in"]
    least, most, whole, tolerance = run["least"], run["most"], run["whole"] != 0, run["sum_tolerance"]
    wrong = _not_finite(work, first * size, count * size)  # padding is zero
    for i in range(first * positions, (first + count) * positions):
        at, total = np.uint64(run["targets"] + i * ld_target), 0.0
        for j in range(columns):
            value = float(work[at + np.uint64(j)])
            total += value
            wrong += not (value >= least and value <= most)
            wrong += whole and value != math.floor(value)
        wrong += tolerance >= 0.0 and abs(total - 1.0) > tolerance
    if weighted:
        wrong += _not_finite(work, run["weights"] + first * positions, count * positions)
    return wrong == 0


@kernel
def _not_finite(work, at, count):
    """Count the numbers that are NaN or infinite."""
    wrong, zero = 0, work.dtype.type(0.0)
    for i in range(count):
        value = work[np.uint64(at) + np.uint64(i)]
        wrong += value - value != zero
    return wrong


_losses = on_demand("loss_of_rows", losses_of_rows, globals(), kernels=KERNELS)
_measure = on_demand("metrics", _metrics_of_rows, globals())
_check = on_demand("checks", _are_fit, globals(), otherwise="True")


@inlined
def _loss_of_rows(layers, scratch, run, capacity, span, batch):
    """Compute losses and metrics of a share of the batch, and the deltas that they start."""
    work, values, metrics = scratch[0], scratch[1], scratch[3]
    if not run["fused"]:
        _measure(run, layers, work, values, metrics, capacity, span)
    _losses_of_rows(layers, scratch, run, capacity, span, batch)
    # Metrics read what the model puts out; the loss from logits overwrites logits with probabilities.
    if run["fused"]:
        _measure(run, layers, work, values, metrics, capacity, span)


@inlined
def _work_on_rows(layers, params, scratch, data, run, phase, iteration, start, span, batch):
    """Take one thread's share of a batch through one phase."""
    work, capacity = scratch[0], run["batch"]
    fused = run["fused"] != 0
    if phase["flags"] & GATHER:
        _choose_rows(scratch, run, start, span)
        _gather_rows_of(layers, scratch, data, run, span)
        if run["checks"] and not _check(
            run, layers, work, span, data[3][0]["columns"], np.int64(data[5][0]["rows"] > 0)
        ):
            run["refused"] = 1
            return
    noise = key_of(run["seed"], DROPOUT_STREAM, iteration)
    x, aside = (work, np.int64(0), layers[0]["ld_in"]), run["aside"]
    forward(layers, params, x, work, capacity, span, phase["forward"], phase["forward_end"], fused, aside, noise)
    if phase["flags"] & LOSS:
        _loss_of_rows(layers, scratch, run, capacity, span, batch)
    for index in range(phase["backward_end"] - 1, phase["backward"] - 1, -1):
        linear = fused and index == layers.shape[0] - 1
        backward_row(layers[index], params, work, capacity, span, linear, run["deltas"], aside, run["zeros"], batch)


@kernel
def _share_of_columns(n, thread, threads):
    """Return (first, count) of one thread's part of n columns, in whole blocks; a late thread may have none."""
    share = (padded(n) // BLOCK + threads - 1) // threads * BLOCK
    first = thread * share
    return first, min(share, n - first)


@kernel
def _work_on_columns(run, layers, work, phase, batch, thread):
    """Compute a batch norm's statistics, or the sums of its deltas, for one thread's share of the columns."""
    capacity = run["batch"]
    row = layers[phase["forward"]]
    first, count = _share_of_columns(row["n_in"], thread, run["threads"])
    if count <= 0:
        return
    last = first + count
    m, aside = batch * row["positions"], run["aside"] + row["transposed"]
    if phase["kind"] == STATISTICS:
        column_statistics(row, work, aside, row["input"] * capacity, m, first, last)
    else:
        d = run["deltas"] + row["output"] * capacity
        column_sums(row, work, aside, row["pre"] * capacity, d, m, first, last)


_on_columns = on_demand("columns", _work_on_columns, globals())
_penalties = on_demand("activities", activity.penalties, globals(), otherwise="0.0")
_scale_slabs = on_demand("factors", set_factors, globals())
_round_biases = on_demand("biases", fake_quant.round_biases, globals())


@kernel
def _add_up(run, layers, scratch, capacity, batch, step):
    """Sum the batch's losses and metrics over its rows, in order, into totals[step]; returns the loss."""
    work, values, totals, metrics, _, _ = scratch
    positions, columns = layers[layers.shape[0] - 1]["positions_out"], 1 + metrics.size
    for k in range(columns):
        total = 0.0
        for i in range(batch * positions):
            total += values[i * columns + k]
        totals[step, k] = total
    totals[step, 0] += _penalties(run, layers, work, capacity, batch) * positions
    return totals[step, 0]


@inlined
def _work(tables, vectors, scratch, data, settings, run, phase, rates_of_step, start, batch, thread):
    """Do one thread's part of one phase."""
    kind = phase["kind"]
    if kind == ROWS:
        begin, end = run["begin"], min(run["end"], batch)
        share = (end - begin + run["threads"] - 1) // run["threads"]
        first = begin + thread * share
        span = (first, min(share, end - first))
        if span[1] > 0:
            _work_on_rows(tables[0], vectors[3], scratch, data, run, phase, rates_of_step[2], start, span, batch)
    elif kind == STATISTICS or kind == SUMS:
        _on_columns(run, tables[0], scratch[0], phase, batch, thread)
    else:
        work_on_slabs(tables, vectors, scratch, run, phase, settings, rates_of_step, batch, thread)


_lend, _run_phase = region_of(_work, 5)


@inlined
def _finish_phase(tables, vectors, scratch, run, phase, step, batch):
    """Do the serial work behind a phase; returns whether the step may go on: its loss is finite, its rows are fit."""
    layers, slabs, segments, _ = tables
    if run["refused"]:
        return False
    if run["end"] < (batch if phase["kind"] == ROWS else slabs.size):
        return True  # only a part of it
    if phase["kind"] == ROWS and phase["flags"] & LOSS:
        return math.isfinite(_add_up(run, layers, scratch, run["batch"], batch, step))
    if phase["kind"] != SLABS:
        return True
    if phase["flags"] & GRADIENT and run["penalties"]:
        penalty = 0.0
        for index in range(slabs.size):
            penalty += scratch[5][index, 0]
        scratch[2][step, 0] += penalty * batch * layers[layers.shape[0] - 1]["positions_out"]
    if phase["flags"] & CLIP and run["clip"] >= CLIP_NORM:
        _scale_slabs(run, slabs, segments, scratch[5])
    if phase["flags"] & UPDATE and run["rounds_kernels"]:
        _round_biases(run, layers, vectors[0], vectors[3])  # once all ranges have moved
    return True


def _run_steps(tables, vectors, scratch, data, runs, settings):
    """Work through batches ``first_step`` .. ``first_step + steps`` of an epoch; returns how many were finished.

    tables : (layers, slabs, segments, phases)
    vectors : (params, state, mask, values), state[0] the gradients, then the optimizer's slots; a mask of no elements
        is none; values is what rows read: params, or the copy of it with rounded kernels
    scratch : (work, values, totals, metrics, order, sums), the caller's memory; totals takes a row a step: sums over
        the batch's rows of loss and metrics; sums has two numbers a slab
    data : (x, x_form, y, y_form, w, w_form), sources as in engine.gather; a w of no rows weighs all alike
    runs : one `RUN`; settings : (hyper, rates), a learning rate a step

    A step whose loss is not finite ends the run before it changes a parameter, and so does one whose rows are refused.
    """
    run = runs[0]
    run["refused"] = 0
    phases = tables[3]
    hyper, rates = settings
    launcher, threads, capacity, rows = run["launcher"], run["threads"], run["batch"], run["rows"]
    lent = _lend(tables, vectors, scratch, data, settings)
    for step in range(run["steps"]):
        start = (run["first_step"] + step) * capacity
        batch = min(capacity, rows - start)
        iteration = run["iteration"] + step + 1
        adjusted = rate_of_step(run, rates[step], iteration, hyper)
        for index in range(phases.size):
            if phases[index]["kind"] == TRANSPOSES and step > 0:
                continue  # the update keeps them up to date
            rates_of_step = (rates[step], adjusted, iteration)
            phase = phases[index]
            _run_phase(launcher, threads, lent, run, phase, rates_of_step, start, batch)
            if not _finish_phase(tables, vectors, scratch, runs[0], phases[index], step, batch):
                return step
    return run["steps"]


@kernel
def _some_columns(layers, params, x, work, rows, index, threads, thread):
    """Compute one thread's share of a layer's units, in whole blocks."""
    row = layers[index]
    first, count = _share_of_columns(row["n_out"], thread, threads)
    if count > 0:
        operand, span = (x, np.int64(0), layers[0]["n_in"]), (np.int64(0), rows)
        dense(row, params, operand, work, rows, span, np.bool_(False), first, count)


@kernel
def _some_rows(layers, params, x, n_in, out, width, chunk, rows, threads, thread):
    """Predict one thread's share of the rows, in a workspace of its own for some of them."""
    share = (rows + threads - 1) // threads
    begin = thread * share
    end = min(rows, begin + share)
    if begin < end:
        capacity = min(chunk, end - begin)
        work = allocate(width * capacity, params)
        for first in range(begin, end, capacity):
            count = min(capacity, end - first)
            _rows_forward(layers, params, x, n_in, work, capacity, first, count, np.int64(0), layers.shape[0])
            _copy_out(layers, work, capacity, count, out, first)
        release(work)


_run_columns = region(_some_columns)
_run_rows = region(_some_rows)


def _predict(layers, params, x, out, width, chunk, launcher, threads):
    """Write the outputs of all rows of ``x`` into ``out``, both C-ordered matrices in the engine's dtype.

    ``width`` is the workspace's columns. Each thread takes rows, ``chunk`` of them at a time through all layers.
    """
    rows, n_in = x.shape
    _run_rows(launcher, threads, layers, params, flat(x), n_in, flat(out), width, chunk, rows, threads)


def _predict_by_columns(layers, params, x, out, width, launcher, threads):
    """Do what `_predict` does, each thread taking units: for so few rows that reading the kernels takes the time."""
    rows, n_in = x.shape
    inputs, work = flat(x), allocate(width * rows, params)
    for index in range(layers.shape[0]):
        row = layers[index]
        if row["kind"] == _DENSE and row["n_in"] * row["n_out"] >= SHARED_KERNEL:
            _run_columns(launcher, threads, layers, params, inputs, work, rows, index, threads)
            finish_dense(row, work, rows, (np.int64(0), rows))
        else:
            _rows_forward(layers, params, inputs, n_in, work, rows, np.int64(0), rows, index, index + 1)
    _copy_out(layers, work, rows, rows, flat(out), np.int64(0))
    release(work)


@kernel
def _copy_rows_of_input(row, x, offset, work, count):
    """Copy the input of rows of data to where rows of the table read it that are not dense; these read it as it is."""
    positions, n, ld = row["positions"], row["n_in"], row["ld_in"]
    for i in range(count * positions):
        for j in range(n):
            work[i * ld + j] = x[offset + i * n + j]
    clear_padding(work, np.int64(0), ld, count * positions, n)


_copy_input = on_demand("copy_input", _copy_rows_of_input, globals(), record="row")


@kernel
def _rows_forward(layers, params, x, n_in, work, capacity, first, count, begin, end):
    """Take rows first..first+count of the flat ``x`` through rows begin..end of the table, from row 0 of ``work``."""
    if begin == 0 and layers[0]["copy_input"] != 0:
        _copy_input(layers[0], x, first * n_in, work, count)
    operand = (x, first * n_in, layers[0]["n_in"])
    span = (np.int64(0), count)
    forward(layers, params, operand, work, capacity, span, begin, end, False, np.int64(0), np.uint64(0))


@kernel
def _copy_out(layers, work, capacity, count, out, first):
    row = layers[layers.shape[0] - 1]
    n, positions = row["n_out"], row["positions_out"]
    for i in range(count * positions):
        source, target = np.uint64(row["output"] * capacity + i * row["ld_out"]), np.uint64((first * positions + i) * n)
        for j in range(n):
            out[target + np.uint64(j)] = work[source + np.uint64(j)]


def _round_kernels(layers, params, values):
    """Copy the parameters to ``values``, rounding the kernels and biases of the rows that read them rounded."""
    for i in range(params.size):
        values[i] = params[i]
    for index in range(layers.shape[0]):
        row = layers[index]
        if row["kind"] == _DENSE and row["scales"] >= 0:
            fake_quant.round_kernel(row, params, values, 0, row["n_in"])
    fake_quant.round_biases(layers, params, values)


def set_addresses_forward(layers: Any, dtype: Any) -> None:
    """Write to a table of rows the addresses of what predictions call by them."""
    set_addresses_of_kinds(layers, dtype, ("forward",))
    reads_input = (layers["input"] == 0) | (layers["second"] == 0)
    copies = bool((reads_input & (layers["kind"] != _DENSE)).any())
    layers["copy_input"][0] = address_of(_copy_rows_of_input, dtype) if copies else 0


def set_addresses(run: Any, tables: tuple[Any, ...], dtype: Any, metrics: int, holds: bool) -> None:
    """Write the addresses of the kernels that a run calls by them into its record, and into its table of rows.

    Parameters
    ----------
    run : structured array of one `RUN`
        Its other fields say what it does.
    tables : tuple of structured arrays
        Layers, slabs, segments and phases, as the program takes them.
    dtype : dtype
        Of the network.
    metrics : int
        How many metrics are computed beside the loss.
    holds : bool
        Whether a mask holds weights at zero.
    """
    layers, _, segments, phases = tables
    record = run[0]
    kinds, flags = phases["kind"], phases["flags"]
    of_rows, of_slabs = kinds == ROWS, flags[kinds == SLABS]
    loses, updates = bool((flags[of_rows] & LOSS).any()), bool((of_slabs & UPDATE).any())
    record["penalties"] = (segments["l1"] != 0.0).any() or (segments["l2"] != 0.0).any()
    clips, clips_by_norm = record["clip"] != NO_CLIP, record["clip"] >= CLIP_NORM
    adjusts = record["penalties"] or clips or holds or (updates and record["decay"] != 0.0)
    rounds = updates and record["rounds_kernels"]
    wanted = {
        "loss_of_rows": (loses, kernel_of(int(record["loss"]))),
        "metrics": (loses and metrics > 0, _metrics_of_rows),
        "columns": (((kinds == STATISTICS) | (kinds == SUMS)).any(), _work_on_columns),
        "activities": (loses and (layers["kind"] == ACTIVITY.code).any(), activity.penalties),
        "adjust": (of_slabs.size and adjusts, adjust),
        "factors": (of_slabs.size and clips_by_norm, set_factors),
        "follow": (rounds or (updates and record["average"] >= 0.0), follow),
        "biases": (rounds, fake_quant.round_biases),
        "prepare": (updates and record["optimizer"] == NADAM, prepare_nadam),
    }
    for name, (is_wanted, function) in wanted.items():
        record[name] = address_of(function, dtype) if is_wanted else 0
    if (phases["backward_end"][of_rows] > 0).any():
        set_derivatives(layers, dtype, bool(record["fused"]))


def compile_on_demand(dtype: Any) -> None:
    """Compile all that runs may have the addresses of, ahead of time."""
    for function in KERNELS_ON_DEMAND:
        address_of(function, dtype)


def address_of_check(dtype: Any) -> int:
    """Return what the field ``checks`` of a run is to be, where the program is to look at the numbers it gathers."""
    return address_of(_are_fit, dtype)


run_steps = entry(_run_steps, "the training program", seconds=4)
predict = entry(_predict, "the program of predictions", seconds=2)
predict_by_columns = entry(_predict_by_columns)
round_kernels = entry(_round_kernels)
