"""The golden vectors of both roundings (tests/golden/requantise_*.txt), which a C port is to be held against too."""

import numpy as np
import pytest

from nbdense.quant.kernels.rounding import fixed_point_multiply, round_to_byte
from tests.support.compiled import compiled
from tests.support.source_tree import ROOT


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
def requantise_tflite(accumulators, multipliers, shifts, zero_points, lows, highs, out):
    for i in range(out.size):
        value = fixed_point_multiply(np.int32(accumulators[i]), np.int32(multipliers[i]), np.int32(shifts[i]))
        out[i] = min(max(value + zero_points[i], lows[i]), highs[i])


@pytest.mark.kernels
def test_onnx_vectors():
    accumulators, bits, zero_points, lows, highs, expected = vectors("onnx")
    out = np.empty_like(expected)
    requantise_onnx(accumulators, bits.astype(np.uint32).view(np.float32), zero_points, lows, highs, out)
    np.testing.assert_array_equal(out, expected)
    assert len(np.unique(expected)) > 150


@pytest.mark.kernels
def test_tflite_vectors():
    *columns, expected = vectors("tflite")
    out = np.empty_like(expected)
    requantise_tflite(*columns, out)
    np.testing.assert_array_equal(out, expected)


def test_the_roundings_differ_somewhere():
    """Else one of the files would be superfluous, and a port could not tell which it has."""
    onnx, tflite = vectors("onnx"), vectors("tflite")
    np.testing.assert_array_equal(onnx[0], tflite[0])
    assert (onnx[-1] != tflite[-1]).sum() > 20
