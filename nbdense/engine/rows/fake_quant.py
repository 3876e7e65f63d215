"""Fake quantization: floats that have been rounded to what integers hold, with gradients straight through the rounding.

A value becomes scale * (clamp(round(x / scale) + zero_point, least, most) - zero_point), where scale and zero point
follow from a range as the integer model's do (Jacob et al. 2018, section 3). Backward takes the rounding as if it were
the identity: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons" (2013).

A range may learn (Jain et al., "Trained Quantization Thresholds" (2019), section 3; Esser et al., "Learned Step Size
Quantization" (2020), section 2.1). What is trained is a factor on each of its ends, 1 at first, so that a step of the
optimizer moves a range by its own measure, be it small or large.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import kernel
from nbdense.engine.kernels.views import stretch
from nbdense.engine.rows.dense import DENSE
from nbdense.engine.rows.kind import RowKind, buffers, register
from nbdense.engine.tables import FACTORS

# The row's columns: the offset of the range's factors (-1: it does not learn), its ends, and the integers in it.
_FACTORS, _LOW, _HIGH, _LEAST, _MOST = "kernel", "alpha", "rate", "lower", "upper"
_DENSE = DENSE.code

LANES = 16  # that the sums over a row of columns are taken in: the same on every CPU
LEAST_FACTOR = 1 / 16  # no range shrinks to less: it would have to grow again by steps as small as itself
LEAST_SCALE = float(np.finfo(np.float32).tiny)

# 1.5 * 2**23 and 1.5 * 2**52: what is added to them is rounded half to even, for there is no room for a fraction.
_ROUND_32, _ROUND_64 = 12582912.0, 6755399441055744.0


@kernel
def _end(row, params, which, end):
    """One end of a row's range, times its factor, as a float32 number."""
    if row[_FACTORS] >= 0:
        factor = np.float64(params[row[_FACTORS] + which])
        end = end * (factor if factor > LEAST_FACTOR else LEAST_FACTOR)
    return np.float64(np.float32(end))


@kernel
def parameters(row, params):
    """Return (scale, least, most, low): integers are counted in steps from zero, low is the range's lower end.

    The same arithmetic as that of `nbdense.quant.layers.activations.activation_parameters`, to the last bit.
    """
    low, high = _end(row, params, np.int64(0), row[_LOW]), _end(row, params, np.int64(1), row[_HIGH])
    low, high = low if low < 0.0 else 0.0, high if high > 0.0 else 0.0
    steps = row[_MOST] - row[_LEAST]
    scale = np.float64(np.float32((high - low) / steps))
    if scale < LEAST_SCALE:
        low, scale = 0.0, np.float64(np.float32(1.0 / steps))
    zero_point = (row[_LEAST] - low / scale + _ROUND_64) - _ROUND_64
    zero_point = row[_LEAST] if zero_point < row[_LEAST] else zero_point
    zero_point = row[_MOST] if zero_point > row[_MOST] else zero_point
    return scale, row[_LEAST] - zero_point, row[_MOST] - zero_point, low


@kernel
def _forward(row, params, work, capacity, span, aside, noise):
    """Zeros stay zeros, those of the padding too."""
    number = work.dtype.type
    m, source, _, output = buffers(row, capacity, span)
    scale, least, most, _ = parameters(row, params)
    s, low, high = number(scale), number(least), number(most)
    rounder = number(_ROUND_32 if work.itemsize == 4 else _ROUND_64)
    at, put = np.uint64(source), np.uint64(output)
    for j in range(m * row["ld_in"]):
        k = np.uint64(j)
        t = work[at + k] / s
        t = low if t < low else t
        t = high if t > high else t
        work[put + k] = ((t + rounder) - rounder) * s


@kernel
def _backward(row, params, work, capacity, span, deltas, aside, batch):
    """Turn the deltas of the outputs into those of the inputs: zero where these were outside the range.

    Where the range learns, each row of columns leaves in the ``pre`` buffer what `_gradient` adds up.
    """
    number = work.dtype.type
    m, source, _, output = buffers(row, capacity, span)
    d, sums, first = deltas + output, row["pre"] * capacity, span[0] * row["positions"]
    scale, least, most, bottom = parameters(row, params)
    s, ld, half = number(scale), row["ld_in"], number(0.5)
    low, high, zero = number(least) - half, number(most) + half, number(0.0)
    if row[_FACTORS] >= 0:
        for i in range(m):
            at = sums + (first + i) * 2 * LANES
            _sum_row(
                work, source + i * ld, d + i * ld, at, ld, (s, number(least), number(most), number(bottom / scale))
            )
    x, delta = np.uint64(source), np.uint64(d)
    for j in range(m * ld):
        k = np.uint64(j)
        t = work[x + k] / s
        inside = t >= low and t <= high
        work[delta + k] = work[delta + k] if inside else zero
    return d


@kernel
def _sum_row(work, source, d, sums, ld, bounds):
    """Sum over one row of columns, lane by lane, the deltas outside the range, and delta * slope.

    With y = scale * (q - zero_point) and q's rounding taken as a constant, the slope of y as the scale grows is
    q - zero_point - x / scale inside the range; outside it is q - zero_point - low / scale, since the zero point moves.
    """
    number = work.dtype.type
    s, low, high, bottom = bounds
    half, zero = number(0.5), number(0.0)
    rounder = number(_ROUND_32 if work.itemsize == 4 else _ROUND_64)
    outside, slopes = np.uint64(sums), np.uint64(sums + LANES)
    for j in range(2 * LANES):
        work[outside + np.uint64(j)] = zero
    width = min(LANES, ld)  # not a constant, which would be unrolled instead of vectorised
    for begin in range(0, ld, LANES):
        x, delta = np.uint64(source + begin), np.uint64(d + begin)
        for j in range(width):
            k = np.uint64(j)
            t = work[x + k] / s
            inside = t >= low - half and t <= high + half
            clamped = low if t < low else t
            clamped = high if clamped > high else clamped
            slope = ((clamped + rounder) - rounder) - (t if inside else bottom)
            work[outside + k] += zero if inside else work[delta + k]
            work[slopes + k] += work[delta + k] * slope


@kernel
def _gradient(row, gradient, work, run, count, slab, low):
    """Add up the gradients of the two factors, from what rows of columns left in the ``pre`` buffer, row by row.

    The scale is (high - low) / steps; outside its range y moves with low besides.
    """
    number = work.dtype.type
    sums, m = row["pre"] * run["batch"], count * row["positions"]
    first = np.uint64(sums)
    for i in range(1, m):
        of = np.uint64(sums + i * 2 * LANES)
        for j in range(2 * LANES):
            k = np.uint64(j)
            work[first + k] += work[of + k]
    outside, slope = number(0.0), number(0.0)
    for j in range(LANES):
        outside += work[first + np.uint64(j)]
        slope += work[first + np.uint64(LANES + j)]
    of_scale = slope / number(row[_MOST] - row[_LEAST])
    gradient[low] = number(row[_LOW]) * (outside - of_scale)
    gradient[low + 1] = number(row[_HIGH]) * of_scale


@kernel
def round_kernel(row, params, values, first, last):
    """Round rows first..last of a dense row's kernel into ``values``, each column to multiples of its scale.

    A column without a scale, as the padding's, becomes zero.
    """
    number = values.dtype.type
    n, ld = row["ld_out"], row["ld_out"]
    limit, zero = number(row["limit"]), number(0.0)
    rounder = number(_ROUND_32 if values.itemsize == 4 else _ROUND_64)
    scales = stretch(params, row["scales"], n)
    for i in range(first, last):
        at = row["kernel"] + i * ld
        weights, rounded = stretch(params, at, n), stretch(values, at, n)
        for j in range(n):
            s = scales[j]
            t = weights[j] / s
            t = -limit if t < -limit else t
            t = limit if t > limit else t
            rounded[j] = ((t + rounder) - rounder) * s if s > zero else zero


@kernel
def round_biases(layers, params, values):
    """Round the biases beside rounded kernels into ``values``: to multiples of the input's scale times the column's.

    That is the scale of an accumulator, which the integer model adds them to.
    """
    number = values.dtype.type
    for index in range(layers.shape[0]):
        row = layers[index]
        if row["kind"] != _DENSE or row["scales"] < 0 or row["bias"] < 0 or row["quantizer"] < 0:
            continue
        given, _, _, _ = parameters(layers[row["quantizer"]], params)
        for j in range(row["n_out"]):
            step = np.float64(np.float32(given) * np.float32(params[row["scales"] + j]))
            bias = np.float64(params[row["bias"] + j])
            if step > 0.0:
                bias = ((bias / step + _ROUND_64) - _ROUND_64) * step
            values[row["bias"] + j] = number(bias)


FAKE_QUANT = register(
    RowKind(
        "fake_quantize",
        "FakeQuantize",
        tensors={"factors": _FACTORS},
        settings={"low": _LOW, "high": _HIGH, "least": _LEAST, "most": _MOST},
        vector=FACTORS,
        forward=_forward,
        backward=_backward,
        gradient=_gradient,
    )
)
