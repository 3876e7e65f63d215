"""Steps of training in one launch: the rows of a block forward, their losses, back, and their part of the gradients.

Shared memory holds the outputs of all layers for a block's rows, column by column, and the pre-activations that
derivatives want. On the way back an output is read as the operand of a gradient, then the activation's derivative takes
its place, and then the deltas, which are multiplied by that: they have no memory of their own. The last layer's outputs
lie in the run's memory, row by row, as losses read them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbdense.backends.cuda.device import device_function, kernel
from nbdense.backends.cuda.fused import tiles
from nbdense.backends.cuda.fused.tiles import Lines, Tile
from nbdense.backends.cuda.rows import SPOILED, differentiating, losing_row, placing, rows_of_batch, taken
from nbdense.backends.cuda.translation import Translation
from nbdense.backends.cuda.vectors import ALIGNED
from nbdense.engine.elementwise import activation_loops, custom
from nbdense.engine.tables import DELTA_GATED, GATE_DELTA, NO_DELTA

BACKWARD, KEEP = 1, 2  # flags of a launch: whether it goes back; whether the layers' values and deltas are to be kept

# What differs between networks, and is no part of their tables.
FUSION = np.dtype(
    [
        ("slices", np.int64),  # where shared memory takes slices of kernels, behind the values
        ("deep", np.int64),  # rows of a slice: a multiple of 8
        ("stride", np.int64),  # elements between the blocks' parts of gradients
    ]
)
PLACES = np.dtype(
    [
        ("input", np.int64),  # of a layer, in shared memory
        ("pre", np.int64),
        ("output", np.int64),
        ("kernel", np.int64),  # in a block's part, of its gradients; -1: none is wanted
        ("bias", np.int64),
    ]
)

_SOURCE = """
def train(run, cursor, layers, fusion, places, metrics, params, x, y, weights, targets, weighted, order, work, losses,
          parts, flags):
    values = cuda.shared.array(0, float32{aligned})
    element = cuda.local.array(3, float32)
    thread, zero, one = cuda.threadIdx.x, np.float32(0.0), np.float32(1.0)
    row, column = np.uint64(thread // {across} * 4), np.uint64(thread % {across} * 4)
    slices, most, part = fusion[0]["slices"], fusion[0]["deep"], cuda.blockIdx.x * fusion[0]["stride"]
    last, capacity, deltas = layers.shape[0] - 1, run[0]["batch"], run[0]["deltas"]
    pieces, linear = layers[0]["positions"], run[0]["fused"] != 0
    start, batch = rows_of_batch(run, cursor)
    m = batch * pieces
    if cuda.blockIdx.x * {rows} >= m:  # no rows: the update adds up all parts
        for e in range(thread, fusion[0]["stride"] if m > 0 and flags & {backward} else 0, {threads}):
            parts[part + e] = zero
        return
    for tile in range(cuda.blockIdx.x, (m + {rows} - 1) // {rows}, cuda.gridDim.x):
        first, adds = tile * {rows}, tile != cuda.blockIdx.x
        inside = min({rows}, m - first)
        end = (first + inside - 1) // pieces + 1
        for i in range(first // pieces + thread, end, {threads}):
            write_place(run, start + i, order, i)
        cuda.syncthreads()
        n, n_out, place = layers[0]["n_in"], targets // pieces, places[0]["input"]
        for e in range(thread, (n + 7) // 8 * {eight}, {threads}):
            k, i = e % 8 + e // {eight} * 8, e // 8 % {rows}
            if k < n:
                values[place + k * {ld} + i] = taken(x, order, pieces, first + i, n, k) if i < inside else zero
        for e in range(thread, inside * n_out, {threads}):
            i, j = first + e // n_out, e % n_out
            work[run[0]["targets"] + i * run[0]["ld_target"] + j] = taken(y, order, pieces, i, n_out, j)
        for i in range(first + thread, first + inside, {threads}):
            work[run[0]["weights"] + i] = weights[order[i // pieces], 0] if weighted else one
        for index in range(last + 1):
            layer, place = layers[index], places[index]["output"]
            n, n_out, ld, at_kernel = layer["n_in"], layer["n_out"], layer["ld_out"], layer["kernel"]
            source, pre = places[index]["input"], places[index]["pre"]
            {forward}
            low, high = np.float32(layer["lower"]), np.float32(layer["upper"])
            if index == last:  # its activation is applied to whole rows
                low, high = np.float32(-np.inf), np.float32(np.inf)
            {finish}
            if index == last:
                at_row = layer["pre"] * capacity
                {write}
            elif layer["call_forward"] != 0:
                cuda.syncthreads()
                for e in range(thread, n_out * {rows}, {threads}):
                    at = e // {rows} * {ld} + e % {rows}
                    values[place + at] = values[pre + at]
                    at += place
                    if e % {rows} < inside:
                        loop = layer["call_forward"]
                        call(loop, values, at, at, at, 1, layer["alpha"], layer["beta"], layer["gamma"])
            if flags & {keep}:
                cuda.syncthreads()
                if index == 0:
                    put(values, source, work, first * layer["ld_in"], layer["ld_in"], n, inside, thread, {threads})
                if index < last:
                    at = layer["pre"] * capacity + first * ld
                    put(values, pre, work, at, ld, n_out, inside, thread, {threads})
                    at = layer["output"] * capacity + first * ld
                    put(values, place, work, at, ld, n_out, inside, thread, {threads})
        cuda.syncthreads()
        layer, place = layers[last], places[last]["output"]
        n_out, ld = layer["n_out"], layer["ld_out"]
        for i in range(first + thread, first + inside, {threads}):
            at_z, at_a = layer["pre"] * capacity + i * ld, layer["output"] * capacity + i * ld
            if layer["activation"] > 0 and not linear:
                if at_z != at_a:
                    copy(work, at_z, at_a, n_out)
                activate_row(layer, work, at_a, 1)
            lose_row(run, layer, metrics, work, losses, i, m)
            if not math.isfinite(losses[i * metrics.size]):
                cursor[{spoiled}] = 1
            if layer["activation"] > 0 and not linear and flags & {backward}:
                differentiate_row(layer, work, at_z, at_a, deltas + at_a, 1)
        if flags & {backward} == 0:
            continue
        cuda.syncthreads()
        at = deltas + layer["output"] * capacity + first * ld
        for e in range(thread, (n_out + 7) // 8 * {eight}, {threads}):
            k, i = e % 8 + e // {eight} * 8, e // 8 % {rows}
            if k < n_out:
                values[place + k * {ld} + i] = work[at + i * ld + k] if i < inside else zero
        for back in range(last + 1):
            index = last - back
            layer, place, source = layers[index], places[index]["output"], places[index]["input"]
            n_in, n, ld, at_kernel = layer["n_in"], layer["n_out"], layer["ld_out"], layer["kernel"]
            cuda.syncthreads()
            at_part = part + places[index]["kernel"]
            for begin in range(0, n_in if places[index]["kernel"] >= 0 else 0, {rows}):
                {gradient}
            at_part = part + places[index]["bias"]
            for j in range(thread, n if places[index]["bias"] >= 0 else 0, {threads}):
                total = zero
                for r in range(inside):
                    total += values[place + j * {ld} + r]
                add_part(parts, at_part + j, True, adds, total)
            if layer["flags"] & {no_delta}:  # nothing before learns
                break
            before = layers[index - 1]
            gated = layer["flags"] & {gate} != 0
            sloped = before["activation"] > 0 and before["flags"] & {delta_gated} == 0
            if sloped:  # the derivative takes the place of the values that the gradient has read
                pre = places[index - 1]["pre"]
                cuda.syncthreads()
                for e in range(thread, n_in * {rows}, {threads}):
                    at = e // {rows} * {ld} + e % {rows}
                    if e % {rows} < inside:
                        element[0], element[1], element[2] = values[pre + at], values[source + at], one
                        differentiate_element(before, element, 0, 1, 2)
                        values[source + at] = element[2]
            {backward_product}
            {deltas}
            if flags & {keep}:
                cuda.syncthreads()
                at = deltas + layer["input"] * capacity + first * layer["ld_in"]
                put(values, source, work, at, layer["ld_in"], n_in, inside, thread, {threads})
"""
# A slice of the kernel's transpose: eight elements of a row are read by two threads, whole sectors of memory.
_TRANSPOSE = """
for e in range(thread, (deep + 7) // 8 * {width} * 2, {threads}):
    j, k = e // 2 % {width}, (e // 2 // {width} * 2 + e % 2) * 4
    a, b, c, d = zero, zero, zero, zero
    if j < n_in:
        a, b, c, d = load4(params, np.uint64(at_kernel + j * ld + begin + k))
    at = {at} + k * {ld_slice} + j
    {slices}[at], {slices}[at + {ld_slice}] = a, b
    {slices}[at + 2 * {ld_slice}], {slices}[at + 3 * {ld_slice}] = c, d
"""
# Rows begin.. of a kernel's gradient, as many as the tile has: both operands are columns of the block's rows, of which
# four are read at once. Threads side by side have columns side by side, which begin in different banks.
_GRADIENT = """
{start}
{operands}
for r in range(0, inside, 4):
    {load}
    {step}
{store}
"""


@device_function
def add_part(parts, at, inside, adds, value):
    """Leave a sum as a part of a gradient, or add it to the one that is there."""
    if inside:
        parts[at] = parts[at] + value if adds else value


@device_function
def passed(value, before, gated, sloped):
    """Return a delta behind a relu's gate, or times a derivative: ``before`` is that relu's output, or it."""
    value = np.float32(0.0) if gated and not before > np.float32(0.0) else value
    return value * before if sloped else value


def _gradient(tile: Tile) -> Lines:
    """Return what sums up a tile of a kernel's gradient over a block's rows, and leaves it in the block's part."""
    down, each = tile.threads // tile.across, range(tile.each)
    rows = [f"begin + thread // {tile.across} + {i * down}" for i in each]
    columns = [f"thread % {tile.across} + {j * tile.across}" for j in each]
    operands = [f"at_a{i} = np.uint64(source + min({one}, n_in - 1) * {tile.ld})" for i, one in enumerate(rows)]
    operands += [f"at_b{j} = np.uint64(place + min({one}, n - 1) * {tile.ld})" for j, one in enumerate(columns)]
    load: Lines = []
    store: Lines = []
    for operand in "ab":
        for i in each:
            four = ", ".join(f"{operand}{i}{q}" for q in range(4))
            load.append(f"{four} = load4(values, at_{operand}{i} + np.uint64(r))")
    for i, j in tile.cells:
        store += [f"i, j = {rows[i]}, {columns[j]}"]
        store += [f"add_part(parts, at_part + i * ld + j, i < n_in and j < n, adds, c{i}{j})"]
    step = [f"c{i}{j} += a{i}{q} * b{j}{q}" for q in range(4) for i, j in tile.cells]
    return tiles.assembled(_GRADIENT, start=tiles.started(tile), operands=operands, load=load, step=step, store=store)


def _deltas(tile: Tile) -> Lines:
    """Return what takes a thread's sums through a relu's gate, or multiplies them by a derivative, and stores them.

    The relu's outputs, or the derivatives, lie where the sums go.
    """
    lines: Lines = []
    for j in range(tile.each):
        lines += [f"j = np.int64({tile.column(j)})", "if j < n_in:"]
        for rows, sums, at in tiles.fours(tile, j, "source"):
            lines += [f"    a0, a1, a2, a3 = load4(values, {at})"]
            for k, i in enumerate(rows):
                lines += [f"    c{i}{j} = passed(c{i}{j}, a{k}, gated, sloped)"]
            lines += [f"    store4(values, {at}, {sums})"]
    return lines


def ld_slice(tile: Tile) -> int:
    """Return the elements between the rows of a slice: a transpose's are written to other banks, and are vectors."""
    return tile.width + 4


def make(translate: Translation, tile: Tile) -> Any:
    """Return the kernel of a batch's rows, for networks that `nbdense.backends.cuda.fused.plan` lets it take."""
    slices: dict[str, Any] = {"deep": "most", "ld_slice": ld_slice(tile), "slices": "values", "at": "slices"}
    text = tiles.assembled(
        _SOURCE,
        aligned=ALIGNED,
        rows=tile.rows,
        across=tile.across,
        threads=tile.threads,
        ld=tile.ld,
        eight=8 * tile.rows,
        backward=BACKWARD,
        keep=KEEP,
        spoiled=SPOILED,
        no_delta=NO_DELTA,
        gate=GATE_DELTA,
        delta_gated=DELTA_GATED,
        forward=tiles.product(tile, source="source", **slices),
        finish=tiles.finished(tile, "pre", "inside"),
        write=tiles.written(tile, "work", "at_row", "ld", "m"),
        gradient=_gradient(tile),
        backward_product=tiles.product(tile, source="place", fill=_TRANSPOSE, **slices),
        deltas=_deltas(tile),
    )
    most, apart = tile.rows, tile.ld

    @device_function
    def put(values, place, work, at, ld, n, inside, thread, threads):
        """Write n columns of a block's values to the rows of a matrix, eight at a time."""
        for e in range(thread, (n + 7) // 8 * 8 * most, threads):
            k, i = e % 8 + e // (8 * most) * 8, e // 8 % most
            if k < n and i < inside:
                work[at + i * ld + k] = values[place + k * apart + i]

    space = tiles.NAMES | {
        "math": math,
        "add_part": add_part,
        "passed": passed,
        "put": put,
        "rows_of_batch": rows_of_batch,
        "taken": taken,
        "write_place": placing(translate),
        "call": translate(custom.call_loop),
        "copy": translate(activation_loops.copy_block),
        "activate_row": translate(activation_loops.activate_row),
        "differentiate_row": translate(activation_loops.differentiate),
        "differentiate_element": differentiating(translate),
        "lose_row": losing_row(translate),
    }
    exec(compile("\n".join(text), "<nbdense train>", "exec"), space)
    return kernel(space["train"])
