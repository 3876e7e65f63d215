"""The microkernel and its driver. Small whole numbers make every product exact, so that comparisons are too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdense._compile.policy import JIT, switch
from nbdense.engine.kernels.microkernel import ROWS, SHAPES, TILES, VECTOR_BYTES
from nbdense.engine.kernels.product import gated_product, product
from tests.reference import naive
from tests.support.compiled import compiled
from tests.support.strategies import SEEDS, SIZES

DTYPES = [np.float32, np.float64]
INF = np.inf
# (m, n, depth): one tile's heights and widths with their neighbours, and one row, which takes wider tiles.
LANES = VECTOR_BYTES // 4
CASES = [
    *naive.draw_shapes(np.random.default_rng(1), 12),
    *[(rows + d, 2 * LANES + d, 3) for rows in ROWS for d in (-1, 0, 1) if rows + d > 0],
    *[(1, vectors * LANES + d, 2) for vectors in (1, 2, 4, 8, 11) for d in (-1, 0, 1)],
]
globals().update(TILES)
ARGUMENTS = "depth, a, b, init, c, gate, lower, upper"
_run_tile = switch("_run_tile", dict(enumerate(TILES)), ARGUMENTS, f"{{f}}({ARGUMENTS})", globals())


@compiled
def multiply(m, n, depth, a, b, init, c, lower, upper):
    product(m, n, depth, a, b, init, c, lower, upper)


@compiled
def multiply_gated(m, n, depth, a, b, init, c, gate):
    gated_product(m, n, depth, a, b, init, c, gate)


@compiled
def run_tile(code, depth, a, b, init, c, gate, lower, upper):
    _run_tile(code, depth, a, b, init, c, gate, lower, upper)


def padded(n):
    """Columns that operands must reach to."""
    return -(-n // 16) * 16


def laid_out(matrix, ld, offset, fill=0.0):
    """A flat array that holds ``matrix`` at ``offset``, its rows ``ld`` apart, and ``fill`` elsewhere."""
    rows, columns = matrix.shape
    flat = np.full(offset + rows * ld + 16, fill, matrix.dtype)
    flat[offset : offset + rows * ld].reshape(rows, ld)[:, :columns] = matrix
    return flat


def whole_numbers(rng, shape, dtype):
    return rng.integers(-4, 5, shape).astype(dtype)


def run(a, b, init, lower=-INF, upper=INF, *, gate=None, transposed=False, odd=3):
    """clamp(init + A B) by the driver, or gated; A's rows are columns if ``transposed``; init is a row, matrix or None.

    Strides leave gaps, and offsets are odd; C is a matrix amid nines, which must be there still.
    """
    dtype, (m, depth), n = a.dtype.type, a.shape, b.shape[1]
    ld = padded(n) + 16
    if transposed:
        a_operand = (laid_out(np.ascontiguousarray(a.T), m + odd, odd), odd, 1, m + odd)
    else:
        a_operand = (laid_out(a, depth + odd, odd), odd, depth + odd, 1)
    b_operand = (laid_out(b, ld, odd), odd, ld)
    start = np.zeros((1, n), dtype) if init is None else np.atleast_2d(init)
    c = laid_out(np.zeros((m + 1, n), dtype) if len(start) < m else np.vstack([start, start[:1]]), ld, odd, 9.0)
    init_operand = (c, odd, ld) if init is not None and init.ndim == 2 else (laid_out(start, ld, odd), odd, 0)
    sentinel = c.copy()
    operands = m, n, depth, a_operand, b_operand, init_operand, (c, odd, ld)
    if gate is None:
        multiply(*operands, dtype(lower), dtype(upper))
    else:
        multiply_gated(*operands, (c, -1, 0) if gate is False else (laid_out(gate, ld - 16, odd), odd, ld - 16))
    matrix = c[odd : odd + m * ld].reshape(m, ld)
    expected = sentinel[odd : odd + m * ld].reshape(m, ld)
    np.testing.assert_array_equal(matrix[:, padded(n) :], expected[:, padded(n) :])
    np.testing.assert_array_equal(c[:odd], sentinel[:odd])
    np.testing.assert_array_equal(c[odd + m * ld :], sentinel[odd + m * ld :])
    return matrix[:, :n].copy()


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_three_uses(dtype):
    """X W from a bias row, X^T D from zeros, D W^T added to what C holds."""
    rng = np.random.default_rng(2)
    for m, n, depth in CASES:
        a, b = whole_numbers(rng, (m, depth), dtype), whole_numbers(rng, (depth, n), dtype)
        bias, c = whole_numbers(rng, n, dtype), whole_numbers(rng, (m, n), dtype)
        np.testing.assert_array_equal(run(a, b, bias), bias + a @ b)
        np.testing.assert_array_equal(run(a, b, None, transposed=True), a @ b)
        np.testing.assert_array_equal(run(a, b, c), c + a @ b)


@pytest.mark.kernels
@given(SIZES, SIZES, SIZES, SEEDS, st.sampled_from(DTYPES), st.sampled_from(["bias", "matrix", None]), st.data())
def test_drawn_products_are_within_the_bound(m, n, depth, seed, dtype, start, data):
    """A sum of that many rounded terms, in any order, is that near (Higham 2002, section 3.1)."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(m, depth)).astype(dtype), rng.normal(size=(depth, n)).astype(dtype)
    init = None if start is None else rng.normal(size=(m, n) if start == "matrix" else n).astype(dtype)
    clamp = data.draw(st.sampled_from([(-INF, INF), (0.0, INF), (-0.5, 0.5)]), "clamp")
    layout = {"transposed": data.draw(st.booleans(), "transposed"), "odd": data.draw(st.integers(0, 5), "gap")}
    added = 0.0 if init is None else init.astype(float)
    terms = np.abs(added) + np.abs(a.astype(float)) @ np.abs(b.astype(float))
    error = np.abs(run(a, b, init, *clamp, **layout) - np.clip(added + a.astype(float) @ b, *clamp))
    assert (error <= 1.01 * (depth + 1) * np.finfo(dtype).eps * terms).all()


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_clamps(dtype):
    rng = np.random.default_rng(3)
    a, b = whole_numbers(rng, (13, 3), dtype), whole_numbers(rng, (3, 17), dtype)
    exact = a @ b
    assert exact.min() < -6 and exact.max() > 6
    np.testing.assert_array_equal(run(a, b, None, 0.0), np.maximum(exact, 0))
    np.testing.assert_array_equal(run(a, b, None, 0.0, 6.0), np.clip(exact, 0, 6))
    np.testing.assert_array_equal(run(a, b, None, -2.5, 1.5), np.clip(exact, -2.5, 1.5))


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_gates(dtype):
    """Zero, even for NaN, where the gate is not above 0 (a NaN is not); untouched without a gate."""
    rng = np.random.default_rng(6)
    for m, n, depth in CASES:
        a, b = whole_numbers(rng, (m, depth), dtype), whole_numbers(rng, (depth, n), dtype)
        a[0, 0] = np.nan
        c, gate = whole_numbers(rng, (m, n), dtype), rng.choice([-1, 0, -0.0, 1e-30, 2, np.nan], (m, n)).astype(dtype)
        np.testing.assert_array_equal(run(a, b, None, gate=gate), np.where(gate > 0, a @ b, 0))
        np.testing.assert_array_equal(run(a, b, c, gate=gate), np.where(gate > 0, c + a @ b, 0))
        np.testing.assert_array_equal(run(a, b, c, gate=False), c + a @ b)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clamp", [(-INF, INF), (0.0, INF), (0.0, 6.0)])
def test_nan_and_infinity_pass_through_clamps(dtype, clamp):
    """A NaN stays one, an infinity takes the clamp's bound, and neither leaves its row."""
    a = np.ones((14, 2), dtype)
    a[1, 0], a[3, 0], a[13, 1] = np.nan, INF, -INF
    b = np.ones((2, 19), dtype)
    with np.errstate(invalid="ignore"):
        expected = np.clip(a @ b, *clamp)
    assert np.isnan(expected[1]).all()
    np.testing.assert_array_equal(run(a, b, None, *clamp), expected)
    b[0, 4] = 0.0
    assert np.isnan(run(a, b, None, *clamp)[3, 4])  # infinity times 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_tiling_changes_no_bit(dtype, transposed):
    """Any split of rows or columns gives the same sums: what threads and batches rest on."""
    rng = np.random.default_rng(4)
    m, n, depth = 29, 150, 37
    a, b = rng.normal(size=(m, depth)).astype(dtype), rng.normal(size=(depth, n)).astype(dtype)
    bias = rng.normal(size=n).astype(dtype)
    whole = run(a, b, bias, transposed=transposed)
    np.testing.assert_allclose(whole, bias + a.astype(float) @ b, atol=60 * depth * np.finfo(dtype).eps)
    for size in (1, 5, 12, 13):
        parts = [run(a[i : i + size], b, bias, transposed=transposed) for i in range(0, m, size)]
        np.testing.assert_array_equal(np.vstack(parts), whole)
    for size in (1, 16, 47):
        parts = [
            run(a, np.ascontiguousarray(b[:, j : j + size]), bias[j : j + size], transposed=transposed)
            for j in range(0, n, size)
        ]
        np.testing.assert_array_equal(np.hstack(parts), whole)


@pytest.mark.skipif(not JIT, reason="without the JIT a tile is its twin")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tile_equals_its_twin(shape, dtype):
    rng = np.random.default_rng([5, *shape])
    rows, vectors = shape
    columns = vectors * VECTOR_BYTES // np.dtype(dtype).itemsize
    ld = columns + 16
    for depth in (1, 2, 7):
        a = whole_numbers(rng, 3 + rows * 11, dtype)
        b, init = whole_numbers(rng, 5 + 8 * ld, dtype), whole_numbers(rng, 1 + rows * ld, dtype)
        a[3], b[5 + columns - 1], init[1] = np.nan, INF, -INF
        gate = rng.choice([-1, 0, 1, np.nan], 4 + rows * ld).astype(dtype)
        c = np.full((2, rows * ld + 2), 9, dtype)
        for lower, upper, gate_offset in ((-INF, INF, -1), (0, 6, -1), (-INF, INF, 4)):
            operands = (a, 3, 11, 1), (b, 5, ld), (init, 1, ld)
            end = (gate, gate_offset, ld), dtype(lower), dtype(upper)
            code = list(TILES).index("_tile_{}_{}".format(*shape))
            run_tile(code, depth, *operands, (c[0], 2, ld), *end)
            with np.errstate(invalid="ignore"):
                TILES[f"_tile_{rows}_{vectors}"].twin(depth, *operands, (c[1], 2, ld), *end)
            np.testing.assert_array_equal(c[0], c[1])
