"""The golden vectors of all roundings (tests/golden/requantise_*.txt), which a C port is to be held against too."""

import itertools

import numpy as np
import pytest

from nbdense.quant.kernels.rounding import CODES, fixed_point_multiply, round_to_byte
from tests.support.compiled import compiled
from tests.support.source_tree import ROOT

FIXED_POINT = [name for name in CODES if name != "onnx"]


def vectors(name):
    lines = (ROOT / "tests" / "golden" / f"requantise_{name}.txt").read_text().splitlines()
    return np.array([line.split() for line in lines if not line.startswith("#")], np.int64).T


@compiled
def requantise_onnx(accumulators, multipliers, zero_points, lows, highs, out):
    for i in range(out.size):
        value = np.float32(np.int32(accumulators[i])) * multipliers[i]
        # bytes count from the type's minimum
        out[i] = np.int64(round_to_byte(value, zero_points[i] + 128, lows[i] + 128, highs[i] + 128)) - 128


@compiled
def requantise_fixed(accumulators, multipliers, shifts, zero_points, lows, highs, rounding, out):
    for i in range(out.size):
        value = fixed_point_multiply(np.int32(accumulators[i]), np.int32(multipliers[i]), np.int32(shifts[i]), rounding)
        out[i] = min(max(value + zero_points[i], lows[i]), highs[i])


@pytest.mark.kernels
def test_onnx_vectors():
    accumulators, bits, zero_points, lows, highs, expected = vectors("onnx")
    out = np.empty_like(expected)
    requantise_onnx(accumulators, bits.astype(np.uint32).view(np.float32), zero_points, lows, highs, out)
    np.testing.assert_array_equal(out, expected)
    assert len(np.unique(expected)) > 150


@pytest.mark.kernels
@pytest.mark.parametrize("rounding", FIXED_POINT)
def test_fixed_point_vectors(rounding):
    *columns, expected = vectors(rounding)
    out = np.empty_like(expected)
    requantise_fixed(*columns, CODES[rounding], out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(CODES, 2)])
def test_the_roundings_differ_somewhere(first, second):
    """Else one of the files would be superfluous, and a port could not tell which it has."""
    first, second = vectors(first), vectors(second)
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[-1] != second[-1]).sum() > 20
