"""Observers: what calibration remembers of a tensor that streams by, and the ranges that it chooses from that.

A `Histogram` has as many bins on either side of 0. Their width is a power of two, the least that reaches the largest
magnitude seen; when a value falls outside, pairs of bins are merged until it fits. So what is in them depends on the
values alone: not on their order, nor on how they were cut into batches. Zeros are counted apart. They have an integer
of their own in any range, so no choice of one costs them anything, and relu's many would drown the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nbdense.quant.layers.base import Range

Values = npt.NDArray[np.floating]

BINS = 2048  # on either side of 0
LEVELS = 256
PERCENTILE = 99.99
_REACH = int(math.log2(BINS))
# What mse multiplies an end with: down to 1/256 of it in steps of 9%, and then by less.
_SHARES = 2.0 ** (-np.arange(65) / 8)
_CLOSE = 2.0 ** np.linspace(-1 / 8, 1 / 8, 33)
_CANDIDATES = 256  # thresholds that entropy tries


class NotFiniteError(ValueError):
    """Values with NaN or, in float32, infinity among them: they have no range."""


class MinMax:
    """Least and greatest value.

    Attributes
    ----------
    low, high : float
        Least and greatest of all values so far; inf and -inf before the first.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, values: Values) -> None:
        """Take in more values.

        Parameters
        ----------
        values : ndarray of float
            Values of any shape, at least one.

        Raises
        ------
        NotFiniteError
            If one is not finite in float32.
        """
        low, high = float(values.min()), float(values.max())
        with np.errstate(over="ignore"):
            if not np.isfinite(np.array([low, high]).astype(np.float32)).all():
                raise NotFiniteError("values that are not finite have no range")
        self.low, self.high = min(self.low, low + 0.0), max(self.high, high + 0.0)  # no negative zeros

    def range(self) -> Range:
        """Return the range of all values so far: (low, high)."""
        return self.low, self.high


class Histogram(MinMax):
    """Counts of values in bins, and a range chosen from them.

    Parameters
    ----------
    choose : callable
        ``choose(histogram)`` gives the range, where there are two different values at least.

    Attributes
    ----------
    counts : ndarray of int64, (2 * BINS,)
        Bin i holds the values in [(i - BINS) * width, (i - BINS + 1) * width) that are not zero.
    exponent : int
        The bins' width is 2**exponent.
    zeros : int
        Values that are zero in float32.
    """

    def __init__(self, choose: Callable[[Histogram], Range]) -> None:
        super().__init__()
        self.choose = choose
        self.counts = np.zeros(2 * BINS, np.int64)
        self.exponent = -1000
        self.zeros = 0

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    def update(self, values: Values) -> None:
        """Take in more values.

        Parameters
        ----------
        values : ndarray of float
            Values of any shape, at least one.

        Raises
        ------
        NotFiniteError
            If one is not finite in float32.
        """
        super().update(values)
        values = np.asarray(values, np.float32)
        zeros = values.size - int(np.count_nonzero(values))
        self.zeros += zeros
        if zeros == values.size:
            return
        self._widen(float(np.abs(values).max()))
        # In float64 a float32 number times a power of two is exact.
        scaled = np.multiply(values, math.ldexp(1.0, -self.exponent), dtype=np.float64)
        places = np.floor(scaled, out=scaled).astype(np.intp).ravel()
        places += BINS
        self.counts += np.bincount(places, minlength=2 * BINS)
        self.counts[BINS] -= zeros

    def range(self) -> Range:
        """Return the range that the method chooses within (low, high)."""
        if self.low == self.high or not self.counts.any():
            return self.low, self.high
        return self.choose(self)

    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Count the magnitudes of values in bins of the same width, (BINS,)."""
        return self.counts[BINS:] + self.counts[BINS - 1 :: -1]

    def clipped(self, least: float, most: float) -> Range:
        """Cut (low, high) to what lies between two ends.

        Parameters
        ----------
        least, most : float
            At most 0 and at least 0.
        """
        return min(max(self.low, least), self.high), max(min(self.high, most), self.low)

    def _widen(self, largest: float) -> None:
        exponent = math.frexp(largest)[1] - _REACH
        if not self.counts.any():
            self.exponent = max(self.exponent, exponent)
        while self.exponent < exponent:
            pairs = self.counts.reshape(BINS, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 2 : BINS // 2 + BINS] = pairs
            self.exponent += 1


def maker(method: str, percentile: float = PERCENTILE, levels: int = LEVELS) -> Callable[[], MinMax]:
    """Return a function that makes observers of a method.

    Parameters
    ----------
    method : str
        "minmax", "percentile", "mse" or "entropy".
    percentile : float
        Percentile in (0, 100], for "percentile".
    levels : int
        How many integers there are, at least 2; of "mse" and "entropy".

    Returns
    -------
    callable
        Of no arguments, for a new observer.

    Raises
    ------
    ValueError
        For an option that there is not.
    """
    if not (isinstance(percentile, (int, float)) and 0 < percentile <= 100):
        raise ValueError(f"calibration: percentile must lie in (0, 100], got {percentile!r}")
    if isinstance(levels, bool) or not isinstance(levels, (int, np.integer)) or levels < 2:
        raise ValueError(f"calibration: levels must be a whole number of at least 2, got {levels!r}")
    if method not in METHODS:
        raise ValueError(f"calibration: the method must be {' or '.join(map(repr, METHODS))}, got {method!r}")
    if method == "minmax":
        return MinMax
    choose: dict[str, Callable[[Histogram], Range]] = {
        "percentile": lambda histogram: percentile_range(histogram, float(percentile)),
        "mse": lambda histogram: mse_range(histogram, int(levels)),
        "entropy": lambda histogram: entropy_range(histogram, int(levels)),
    }
    return lambda: Histogram(choose[method])


METHODS = ("minmax", "percentile", "mse", "entropy")


def percentile_range(histogram: Histogram, percentile: float = PERCENTILE) -> Range:
    """Find the range of the values whose magnitude is not among the largest.

    Parameters
    ----------
    histogram : Histogram
        Histogram of values that are not all zero.
    percentile : float
        The share, in percent, of the values other than zero that lie within; inside a bin they are taken to be
        spread evenly.

    Returns
    -------
    (float, float)
    """
    counts = histogram.magnitudes()
    sums = np.cumsum(counts)
    wanted = percentile / 100 * int(sums[-1])
    i = int(np.searchsorted(sums, wanted))
    share = 1 - (int(sums[i]) - wanted) / int(counts[i])
    end = (i + share) * histogram.width
    return histogram.clipped(-end, end)


def mse_range(histogram: Histogram, levels: int = LEVELS) -> Range:
    """Find the range of least mean squared error between the values and the nearest of the levels.

    The levels lie evenly over the range widened to hold 0, moved so that one of them is 0; values inside a bin are
    taken to be spread evenly. First both ends are drawn in together, then each by itself, until neither gains.

    Parameters
    ----------
    histogram : Histogram
        Histogram of values that are not all zero.
    levels : int
        How many integers there are.

    Returns
    -------
    (float, float)
    """
    width = histogram.width
    low, high = min(histogram.low, 0.0) / width, max(histogram.high, 0.0) / width
    filled = np.flatnonzero(histogram.counts)
    left = np.maximum(filled - BINS, low)
    right = np.maximum(np.minimum(filled - BINS + 1, high), left + 1e-3)
    counts = histogram.counts[filled]
    whole, best = np.array([low, high]), np.array([low, high])
    least, idle = math.inf, 0
    both, only_low, only_high = (True, True), (True, False), (False, True)
    for moves in [both] if low == 0 or high == 0 else [both, *[only_low, only_high] * 3]:
        last = least
        for start, shares in ((whole, _SHARES), (best, _CLOSE)):  # all the way down, then around the best
            ends = np.where(moves, np.clip(np.multiply.outer(shares, start), low, high), best)
            errors = _squared_errors(left, right, counts, ends, levels)
            if errors.min() < least:
                least, best = float(errors.min()), ends[int(errors.argmin())]
        idle = idle + 1 if least == last else 0
        if idle == 2:
            break
    return histogram.clipped(float(best[0]) * width, float(best[1]) * width)


def _squared_errors(
    left: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.float64],
    levels: int,
) -> npt.NDArray[np.float64]:
    """Sum the squared errors of bins [left, right) for each row (low, high) of ``ends``."""
    step = ((ends[:, 1] - ends[:, 0]) / (levels - 1))[:, np.newaxis]
    step = np.maximum(step, 1e-12)
    first = -np.rint(-ends[:, :1] / step)

    def integral(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Integrate the squared error from 0 to x: n whole cells of step**3 / 12, and the rest beyond the last."""
        n = np.clip(np.rint(x / step), first, first + levels - 1)
        return n * step**3 / 12 + (x - n * step) ** 3 / 3

    return ((integral(right) - integral(left)) * (counts / (right - left))).sum(axis=1)


def entropy_range(histogram: Histogram, levels: int = LEVELS) -> Range:
    """Find the range that loses the least information: of the least Kullback-Leibler divergence.

    Method: Migacz, "8-bit Inference with TensorRT" (2017), with the signs kept: values beyond a threshold are
    counted at it, and bins that share a level share its count evenly among those that are not empty. As in NVIDIA's
    pytorch-quantization, a bin beside 0 counts no more than the next: what is as good as 0 needs no levels, and its
    crowd (a softmax's, say) would have the ends drawn in for nothing.

    Parameters
    ----------
    histogram : Histogram
        Histogram of values that are not all zero.
    levels : int
        How many integers there are.

    Returns
    -------
    (float, float)
    """
    width, counts = histogram.width, histogram.counts.copy()
    counts[BINS] = min(counts[BINS], counts[BINS + 1])
    counts[BINS - 1] = min(counts[BINS - 1], counts[BINS - 2])
    filled = np.flatnonzero(counts)
    below, above = max(BINS - int(filled[0]), 0), max(int(filled[-1]) + 1 - BINS, 0)
    most = max(below, above)
    # With fewer bins than levels nothing would be merged, and only what is cut off would count.
    least = next((i for i in range(1, most) if min(i, below) + min(i, above) >= levels), most)
    best, chosen = math.inf, most
    for i in np.unique(np.linspace(least, most, _CANDIDATES).astype(np.int64)):
        divergence = _divergence(counts, BINS - min(int(i), below), BINS + min(int(i), above), levels)
        if divergence <= best:
            best, chosen = divergence, int(i)
    return histogram.clipped(-chosen * width, chosen * width)


def _divergence(counts: npt.NDArray[np.int64], begin: int, end: int, levels: int) -> float:
    """Return the Kullback-Leibler divergence of the levels of bins begin..end from all values, counted within these."""
    inside = counts[begin:end]
    filled = np.flatnonzero(inside)
    if filled.size == 0:
        return math.inf
    original = inside[filled].astype(np.float64)
    level = filled * levels // inside.size
    merged = np.bincount(level, original)[level] / np.bincount(level)[level]
    merged /= original.sum()
    original[0] += counts[:begin].sum()
    original[-1] += counts[end:].sum()
    original /= original.sum()
    return float((original * np.log(original / merged)).sum())
