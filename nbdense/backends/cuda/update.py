"""The second half of a step: gradients from their shares, what is done to them, the optimizer's step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from nbdense.backends.cuda.device import device_function, kernel
from nbdense.backends.cuda.rows import SPOILED, STEP, STOPPED, rows_of_batch
from nbdense.backends.cuda.translation import Translation
from nbdense.engine.elementwise import optimizer
from nbdense.engine.rows import fake_quant
from nbdense.engine.rows.kind import by_kind
from nbdense.engine.tables import CLIP, CLIP_NORM, CLIP_VALUE, GAMMA, GRADIENT, UPDATE

_AT_ONCE = 16  # loads of a thread

# A parameter tensor, as the device sees it.
PIECE = np.dtype(
    [
        ("offset", np.int64),
        ("length", np.int64),
        ("trainable", np.int64),
        ("shares", np.int64),  # of its gradient, the first of which begins at ``at``, ``stride`` apart; 0: none
        ("at", np.int64),
        ("stride", np.int64),
        ("l1", np.float64),
        ("l2", np.float64),
        ("decay", np.float64),
    ]
)


@device_function
def added_up(parts, first, stride, count):
    """Add up parts of a gradient in order, of which ``_AT_ONCE`` are on their way at once."""
    total = parts.dtype.type(0.0)
    for k in range(count // _AT_ONCE):
        at = first + k * _AT_ONCE * stride
        for q in range(_AT_ONCE):  # a constant, which the compiler unrolls
            total += parts[at + q * stride]
    for k in range(count // _AT_ONCE * _AT_ONCE, count):
        total += parts[first + k * stride]
    return total


def stepping(translate: Translation) -> Any:
    """Return the kernel that takes every parameter through its update, a thread for each; ``flags`` as of SLABS."""
    update = translate(optimizer.update)

    @kernel
    def step(run, cursor, flags, pieces, piece_of, shares, params, state, mask, masked, sums, hypers, rates):
        if cursor[STOPPED] != 0 or cursor[SPOILED] != 0:
            return
        number, now, settings = params.dtype.type, cursor[STEP], run[0]
        rate, adjusted, iteration = rates[now, 0], rates[now, 1], settings["iteration"] + now + 1
        for i in range(cuda.grid(1), piece_of.size, cuda.gridsize(1)):
            if piece_of[i] < 0 or pieces[piece_of[i]]["trainable"] == 0:
                continue
            piece = pieces[piece_of[i]]
            gradient = state[0, i]
            if flags & GRADIENT:
                if piece["shares"] > 0:
                    gradient = added_up(shares, piece["at"] + i - piece["offset"], piece["stride"], piece["shares"])
                if piece["l1"] != 0.0 or piece["l2"] != 0.0:
                    l1, w = number(piece["l1"]), params[i]
                    sign = l1 if w > 0 else (-l1 if w < 0 else number(0.0))
                    gradient += sign + number(2.0 * piece["l2"]) * w
            if masked and flags & (GRADIENT | CLIP):
                gradient *= mask[i]
            if flags & CLIP and settings["clip"] == CLIP_VALUE:
                most = number(settings["clip_at"])
                gradient = most if gradient > most else gradient
                gradient = -most if gradient < -most else gradient
            if flags & UPDATE:
                if settings["clip"] >= CLIP_NORM:
                    gradient *= number(sums[piece_of[i], 1])
                decay = rate * settings["decay"] * piece["decay"]
                if decay != 0.0:
                    params[i] -= params[i] * number(decay)
            state[0, i] = gradient
            if flags & UPDATE:
                code, call = settings["optimizer"], settings["optimizer_call"]
                update(code, call, params, state, i, i + 1, i, adjusted, iteration, hypers[now])
                if settings["average"] >= 0.0:
                    keep = number(settings["average"] if iteration > 1 else 0.0)
                    last = state.shape[0] - 1
                    state[last, i] = keep * state[last, i] + (number(1.0) - keep) * params[i]

    return step


_gradient_of_kind = by_kind("gradient", globals())
_move = by_kind("move", globals())


def filling(translate: Translation) -> tuple[Any, Any, Any]:
    """Return the kernels of the gradients that are no product, of moving averages, and of rounded kernels."""
    gradient_of_kind, move_averages = translate(_gradient_of_kind), translate(_move)
    round_kernel, round_biases = translate(fake_quant.round_kernel), translate(fake_quant.round_biases)

    @kernel
    def fill(run, cursor, layers, slabs, index, low, alone, work, state):
        """Fill in a vector's gradient: column by column, or by one thread, ``alone``, in the way of the row's kind."""
        slab = slabs[index]
        row, capacity, gradient = layers[slab["layer"]], run[0]["batch"], state[0]
        rows, ld, here = rows_of_batch(run, cursor)[1], row["ld_out"], cuda.grid(1)
        if rows == 0:
            return
        if alone:
            if here == 0:
                gradient_of_kind(row, gradient, work, run[0], rows, slab, low)
            return
        source = row["pre"] * capacity if slab["first"] == GAMMA else run[0]["deltas"] + row["output"] * capacity
        for j in range(here, row["n_out"], cuda.gridsize(1)):
            total = work.dtype.type(0.0)
            for i in range(rows * row["positions"]):
                total += work[source + i * ld + j]
            gradient[low + j] = total

    @kernel
    def move(run, cursor, layers, index, params, work):
        if cursor[STOPPED] == 0 and cuda.grid(1) == 0:
            row = layers[index]
            move_averages(row, params, work, run[0]["aside"] + row["transposed"])

    @kernel
    def round_parameters(cursor, layers, index, params, values):
        """Bring what rows read of a dense row up to date: its kernel (``index``), or all biases (-1), or all (-2)."""
        if cursor[STOPPED] != 0:
            return
        here, step = cuda.grid(1), cuda.gridsize(1)
        if index == -2:
            for i in range(here, params.size, step):
                values[i] = params[i]
        elif index == -1:
            if here == 0:
                round_biases(layers, params, values)
        else:
            for i in range(here, layers[index]["n_in"], step):
                round_kernel(layers[index], params, values, i, i + 1)

    return fill, move, round_parameters
