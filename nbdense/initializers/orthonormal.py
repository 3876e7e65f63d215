"""Random orthogonal matrices, in little memory and with the same bits everywhere."""

from __future__ import annotations

import math

import numpy as np

from nbdense._checks import finite_number
from nbdense.initializers.base import Values
from nbdense.initializers.drawn import RandomInitializer

_PANEL = 32  # rows made orthonormal one by one
_PIECE = 1 << 22  # elements multiplied in one go


class Orthogonal(RandomInitializer):
    """``gain`` times a random matrix of orthonormal columns, or rows where there are fewer of those (Saxe et al. 2014).

    Uniformly distributed, as by a QR decomposition whose R has a positive diagonal (Mezzadri 2007, section 4).
    Orthonormal to about 1e-12. The values depend neither on the BLAS that NumPy has nor on its threads.

    Parameters
    ----------
    gain : float
        Factor on the matrix.
    seed : int, optional
        See `RandomInitializer`.
    """

    name = "orthogonal"

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = finite_number(type(self).__name__, "gain", gain)

    def _values(self, shape: tuple[int, ...], random: np.random.Generator, fan_in: int | None) -> Values:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: shape must have two axes, got {shape}; biases take another initializer")
        matrix = (math.prod(shape[:-1]), shape[-1])
        rows = random.standard_normal((min(matrix), max(matrix)))
        _make_orthonormal(rows)
        _make_orthonormal(rows)
        rows *= self.gain
        return (rows if rows.shape == matrix else np.ascontiguousarray(rows.T)).reshape(shape)


def _split(values: Values, bits: int) -> tuple[Values, Values, float]:
    """Split ``values`` as (high + low / 2^bits) * unit, high and low whole numbers of at most 2^bits."""
    exponent = int(np.frexp(max(values.max(), -values.min()))[1])
    low = values * 2.0 ** (bits - exponent)
    high = np.rint(low)
    low = (low - high) * 2.0**bits
    return high, np.rint(low, out=low), 2.0 ** (exponent - bits)


def _product(a: Values, b: Values) -> Values:
    """Multiply a @ b as good as in float64, the same in whatever order BLAS adds: it adds whole numbers, exactly.

    Ozaki et al. 2012, "Error-free transformations of matrix multiplication", section 3.
    """
    bits = (53 - len(b).bit_length()) // 2  # len(b) products of two parts add up to 2^53 at most
    a_high, a_low, a_unit = _split(a, bits)
    b_high, b_low, b_unit = _split(b, bits)
    small = a_high @ b_low + a_low @ b_high
    return (a_high @ b_high + small * 2.0**-bits) * (a_unit * b_unit)


def _make_orthonormal(rows: Values) -> None:
    """Take from each row its shares of those before it, and scale it to length 1 (Gram and Schmidt's process).

    Done twice the rows are orthonormal: the second time takes away what rounding left (Giraud et al. 2005).
    """
    if len(rows) <= _PANEL:
        for i, row in enumerate(rows):
            if i:  # einsum has loops of its own: one order, no BLAS
                row[:] -= np.einsum("i,ij->j", np.einsum("ij,j->i", rows[:i], row), rows[:i])
            row[:] /= math.sqrt(np.einsum("i,i->", row, row))
        return
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    _make_orthonormal(first)
    step = max(1, _PIECE // len(rows))
    # in pieces, or the parts that numbers are split into would be copies of all
    pieces = [slice(start, start + step) for start in range(0, rows.shape[1], step)]
    shares = np.zeros((len(second), len(first)))
    for piece in pieces:
        shares += _product(second[:, piece], first[:, piece].T)
    for piece in pieces:
        second[:, piece] -= _product(shares, first[:, piece])
    _make_orthonormal(second)
