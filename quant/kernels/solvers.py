"""Compiled loops of the solvers for weights, in float64 and serial: sums have one order, on any number of threads.

Matrices are flat, their rows ``ld`` elements apart with zeros behind the last column, as the microkernel wants them.
"""

from __future__ import annotations

import math

import numpy as np

from nbdense._compile.policy import entry, kernel
from nbdense.engine.kernels.product import product

BLOCK = 48  # rows and columns: a multiple of every tile's height and width
_ROUND = 6755399441055744.0  # 1.5 * 2**52: a float64 within +-2**51 has no room for a fraction once this is added


@kernel
def _add_product(m, n, depth, a, b, init, c):
    if depth > 0:
        product(m, n, depth, a, b, init, c, -np.inf, np.inf)


def _add_moments(x, rows, n, ld, sums):
    """Add X^T X of a (rows, n) matrix to ``sums``, on and right of the diagonal's blocks."""
    for i in range(0, n, BLOCK):
        c = (sums, i * ld + i, ld)
        _add_product(min(BLOCK, n - i), n - i, rows, (x, i, 1, ld), (x, i, ld), c, c)


def _factor(a, n, ld, negated):
    """Factor the (n, n) matrix ``a`` by Cholesky: L into its lower triangle, -L^T into ``negated``.

    Returns the row whose pivot is not above zero, or -1. Left-looking: a block of columns first loses what the
    columns before account for, in one product; then it is solved for row by row.
    """
    for first in range(0, n, BLOCK):
        width = min(BLOCK, n - first)
        c = (a, first * ld + first, ld)
        _add_product(n - first, width, first, (a, first * ld, ld, 1), (negated, first, ld), c, c)
        for i in range(first, n):
            row = i * ld + first
            last = min(width, i - first + 1)
            for k in range(last):
                above = (first + k) * ld + first
                if i == first + k:
                    if not a[row + k] > 0.0:
                        return i
                    a[row + k] = math.sqrt(a[row + k])
                else:
                    a[row + k] = a[row + k] / -negated[above + k]
                value = a[row + k]
                negated[above + i - first] = -value
                for j in range(k + 1, last):
                    a[row + j] += value * negated[above + j]
    return -1


def _invert_factor(factor, n, ld, inverse):
    """Write the inverse of a lower triangle into that of ``inverse``, which is zero at first, row by row."""
    for i in range(n):
        row = i * ld
        for k in range(i):
            share, other = factor[row + k], k * ld
            for j in range(k + 1):
                inverse[row + j] -= share * inverse[other + j]
        for j in range(i):
            inverse[row + j] /= factor[row + i]
        inverse[row + i] = 1.0 / factor[row + i]


def _solve_factored(factor, n, ld, x):
    """Solve L L^T x = b in place, L the lower triangle of ``factor``; the upper one is not looked at."""
    for i in range(n):
        for k in range(i):
            x[i] -= factor[i * ld + k] * x[k]
        x[i] /= factor[i * ld + i]
    for i in range(n - 1, -1, -1):
        x[i] /= factor[i * ld + i]
        for k in range(i):
            x[k] -= factor[i * ld + k] * x[i]


def _update_rows(factor, ld, weights, errors, ld_out, n_out, first, last, n):
    """Write rows first..last of ``weights``, moved by later rows' errors, into the same rows of ``errors``.

    ``factor`` is the Cholesky factor, its columns divided by its diagonal.
    """
    start, c = (weights, first * ld_out, ld_out), (errors, first * ld_out, ld_out)
    if last == n:
        for k in range(first * ld_out, last * ld_out):
            errors[k] = weights[k]
        return
    a, b = (factor, last * ld + first, 1, ld), (errors, last * ld_out, ld_out)
    _add_product(last - first, n_out, n - last, a, b, start, c)


def _round_rows(factor, ld, weights, errors, ld_out, n_out, first, last, scales, places, limit, integers):
    """Round the updated rows first..last, the last one first: ``errors`` becomes weights less what they are rounded to.

    Row i has the scales from ``scales[places[i]]`` on.
    """
    for i in range(last - 1, first - 1, -1):
        row = i * ld_out
        for k in range(i + 1, last):
            share, other = factor[k * ld + i], k * ld_out
            for j in range(n_out):
                errors[row + j] += share * errors[other + j]
        at = places[i]
        for j in range(n_out):
            scale = scales[at + j]
            level = errors[row + j] / scale
            level = -limit if level < -limit else level
            level = limit if level > limit else level
            level = (level + _ROUND) - _ROUND
            integers[i * n_out + j] = np.int8(level)
            errors[row + j] = weights[row + j] - level * scale


def _search_scales(kernel, importance, levels, limit, least, scratch, best, scales):
    """Find for each column of ``kernel`` (rows, n) the scale of least error, the sum of importance times its square.

    Its weights are rounded by scales that put the largest at each of ``levels``. Each gives whole numbers q, which
    the scale sum(w q) / sum(q^2) fits best; the error is sum(w^2) less ``best``, sum(w q)^2 / sum(q^2), then. Rounding
    anew by that scale only lessens it. ``scratch`` is (3, n), its first row zeros.
    """
    rows, n = kernel.shape
    largest, products, squares = scratch[0], scratch[1], scratch[2]
    for i in range(rows):
        if importance[i] > 0.0:
            for j in range(n):
                size = abs(kernel[i, j])
                largest[j] = size if size > largest[j] else largest[j]
    for j in range(n):
        best[j] = 0.0
        first = largest[j] / limit
        scales[j] = np.float32(1.0 if largest[j] == 0.0 else (first if first > least else least))
        largest[j] = largest[j] if largest[j] > 0.0 else 1.0
    for t in range(levels.size):
        for j in range(n):
            products[j], squares[j] = 0.0, 0.0
        for i in range(rows):
            for j in range(n):
                level = kernel[i, j] * (levels[t] / largest[j])
                level = -limit if level < -limit else level
                level = limit if level > limit else level
                level = (level + _ROUND) - _ROUND
                products[j] += importance[i] * kernel[i, j] * level
                squares[j] += importance[i] * level * level
        for j in range(n):
            if squares[j] > 0.0 and products[j] * products[j] > best[j] * squares[j]:
                best[j] = products[j] * products[j] / squares[j]
                scale = products[j] / squares[j]
                scales[j] = np.float32(scale if scale > least else least)


add_moments = entry(_add_moments)
factor = entry(_factor)
invert_factor = entry(_invert_factor)
solve_factored = entry(_solve_factored)
update_rows = entry(_update_rows)
round_rows = entry(_round_rows)
search_scales = entry(_search_scales)
