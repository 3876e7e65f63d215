"""The golden vectors of all roundings (tests/golden/requantise_*.txt), which NumPy is held against too."""

import numpy as np
import pytest

from nbdense.quant.kernels.rounding import CODES
from nbdense.runtime.integers import Requantise
from nbdense.runtime.rounding import ROUNDINGS
from tests.support.source_tree import ROOT


def vectors(name):
    lines = (ROOT / "tests" / "golden" / f"requantise_{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = [[int(word) for word in line.split()] for line in lines if not line.startswith("#")]
    return [*np.array(rows, np.int64).T]


def test_names_are_those_of_the_kernels():
    assert tuple(CODES) == ROUNDINGS


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_vectors(rounding):
    accumulators, *factors, zero_points, lows, highs, expected = vectors(rounding)
    if rounding == "onnx":
        reals = factors[0].astype(np.uint32).view(np.float32)
    else:
        reals = np.ldexp(factors[0].astype(np.float64), factors[1] - 31)
    for i, real in enumerate(reals):
        clamp = lows[i] - zero_points[i], highs[i] - zero_points[i]
        step = Requantise(reals[i : i + 1], rounding, clamp, None)
        assert step(accumulators[i : i + 1, None].astype(np.float64)) + zero_points[i] == expected[i], (i, real)
