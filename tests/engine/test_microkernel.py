"""The microkernel and its driver. Small whole numbers make every product exact, so that comparisons are too."""

import re
import types

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import types as nbtypes

from nbdense._compile.policy import JIT, switch
from nbdense._compile.processor import is_arm64
from nbdense.engine.kernels.cache_lines import own
from nbdense.engine.kernels.microkernel import FMA, ROWS, SHAPES, TILES, VECTOR_BYTES, memory
from nbdense.engine.kernels.product import gated_product, owning_product, product, tiled
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
ARGUMENTS = "depth, ahead, a, b, init, c, gate, lower, upper"
_run_tile = switch("_run_tile", dict(enumerate(TILES)), ARGUMENTS, f"{{f}}({ARGUMENTS})", globals())


@compiled
def multiply(m, n, depth, a, b, init, c, lower, upper):
    product(m, n, depth, a, b, init, c, lower, upper)


@compiled
def multiply_gated(m, n, depth, a, b, init, c, gate):
    gated_product(m, n, depth, a, b, init, c, gate)


@compiled
def multiply_owning(m, n, depth, a, b, init, c, behind, owned, owned_columns):
    owning_product(m, n, depth, a, b, init, c, behind, owned, owned_columns)


@compiled
def run_tile(code, depth, ahead, a, b, init, c, gate, lower, upper):
    _run_tile(code, depth, ahead, a, b, init, c, gate, lower, upper)


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
            run_tile(code, depth, columns, *operands, (c[0], 2, ld), *end)
            with np.errstate(invalid="ignore"):
                TILES[f"_tile_{rows}_{vectors}"].twin(depth, 0, *operands, (c[1], 2, ld), *end)
            np.testing.assert_array_equal(c[0], c[1])


@pytest.mark.skipif(not JIT or not FMA or is_arm64(), reason="x86 machine code; tests/aarch64 has NEON's")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_is_little_beside_its_multiply_adds(shape):
    """No access to the stack, no addition for each row: of four instructions a cycle multiply-adds may be two."""
    rows, vectors = shape
    operand = nbtypes.Tuple([nbtypes.CPointer(nbtypes.float32), *[nbtypes.int64] * 2])
    left = nbtypes.Tuple([*operand, nbtypes.int64])
    tile = TILES[f"_tile_{rows}_{vectors}"]

    @numba.njit((nbtypes.int64, nbtypes.int64, left, *[operand] * 4, nbtypes.float32))
    def run_alone(depth, ahead, a, b, init, c, gate, bound):
        tile(depth, ahead, a, b, init, c, gate, bound, bound)

    (assembly,) = run_alone.inspect_asm().values()
    loops = re.findall(r"^(\.LBB\w+):\n((?:(?!^\.LBB).*\n)*?)\s+j\w+\s+\1$", assembly, re.MULTILINE)
    (body,) = [body for _, body in loops if "vfmadd" in body]
    lines = [line.strip() for line in body.splitlines() if not line.strip().startswith("#")]
    assert sum(line.startswith("vfmadd") for line in lines) == rows * vectors
    assert not [line for line in lines if "%rsp" in line or line.startswith("call")]
    others = [line for line in lines if not line.startswith(("vfmadd", "vbroadcast", "vmov", "prefetch"))]
    assert len(others) <= 6, others


# -- cache lines that are owned meanwhile -----------------------------------------------------------------------------


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_owning_changes_no_bit(dtype):
    """Neither the product's nor the others': a NaN's payload stays, and zeros keep their signs."""
    rng = np.random.default_rng(7)
    for m, n, depth in CASES:
        ld, ld_t = padded(n), padded(m)
        a, b = whole_numbers(rng, (m, depth), dtype), laid_out(whole_numbers(rng, (depth, n), dtype), ld, 0)
        integer = np.dtype(f"i{np.dtype(dtype).itemsize}")
        bits = rng.integers(np.iinfo(integer).min, np.iinfo(integer).max, (2, 16 + max(m * ld, n * ld_t)), integer)
        owned = bits.copy().view(dtype)
        c, expected = np.zeros((2, m * ld), dtype)
        operands = m, n, depth, (np.ascontiguousarray(a.T).ravel(), 0, 1, m), (b, 0, ld), (np.zeros(ld, dtype), 0, 0)
        multiply(*operands, (expected, 0, ld), dtype(-INF), dtype(INF))
        for offset, behind in ((16, 0), (-1, 48)):  # memory that is not there is asked for as well
            multiply_owning(*operands, (c, 0, ld), behind, (owned[0], offset, ld), (owned[1], 16, ld_t))
            np.testing.assert_array_equal(c, expected)
            np.testing.assert_array_equal(owned.view(integer), bits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_line_is_owned_once(dtype):
    """The driver's loops come to each line of a matrix as large as C, and of one as large as its transpose."""
    loops = tiled.twin if JIT else tiled
    lanes, line = VECTOR_BYTES // np.dtype(dtype).itemsize, 64 // np.dtype(dtype).itemsize
    for m, n, depth in [*CASES, (48, 80, 3), (32, 512, 3)]:
        found = {"owned": [], "columns": []}

        def record(operand, row, rows, column, columns, of_line, found=found):
            assert of_line == line
            first = -(-column // line)
            lines = range(first, -(-(column + columns) // line))
            found[operand[0]] += [(i, j) for i in range(row, row + rows) for j in lines]

        tiles = {f"_run_{k}": lambda *_: None for k in (1, 2, 4, 8)}
        others = {"own": record, "_rows_of_next_tile": lambda left: max(rows for rows in ROWS if rows <= left)}
        driver = types.FunctionType(loops.__code__, {**loops.__globals__, **others, **tiles})
        none, a = (None, 0, 0), (None, 0, 0, 0)
        driver((m, n, depth, 0, lanes), a, none, none, none, none, 0, 0, ("owned", 0, 1), ("columns", 0, 1))
        assert sorted(found["owned"]) == [(i, j) for i in range(m) for j in range(-(-n // line))]
        assert sorted(found["columns"]) == [(i, j) for i in range(n) for j in range(-(-m // line))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_wanted_next_is_asked_for_once(dtype):
    """A panel of B by the first tile of the one before, and each row of the columns behind A."""
    loops = tiled.twin if JIT else tiled
    size = np.dtype(dtype).itemsize
    lanes = VECTOR_BYTES // size
    for m, n, depth in [*CASES, (48, 80, 3), (32, 512, 300)]:
        asked, panels = [], []

        def run_tile(rows, depth, ahead, a, b, *_, panels=panels):
            panels += [b[1] + ahead] if ahead else []

        others = {
            "ask": lambda array, start, size, asked=asked: asked.append((start, size)),
            "_rows_of_next_tile": lambda left: max(rows for rows in ROWS if rows <= left),
        }
        tiles = {f"_run_{k}": run_tile for k in (1, 2, 4, 8)}
        driver = types.FunctionType(loops.__code__, {**loops.__globals__, **others, **tiles})
        none, a = (None, 0, -1), (None, 7, 1, 100)
        driver((m, n, depth, 20, lanes), a, (None, 0, 16), none, none, none, 0, 0, (None, -1, 0), (None, -1, 0))
        assert sorted(asked) == [(7 + m + k * 100, 20 * size) for k in range(depth)]
        if m > 1:
            assert panels == list(range(2 * lanes, -(-n // lanes) * lanes, 2 * lanes))


@pytest.mark.skipif(not JIT, reason="there is no machine code without the JIT")
def test_no_compiler_leaves_out_what_owns_a_line():
    """A store of what has just been loaded from there is one that compilers take out."""

    @numba.njit
    def own_all(array, rows, columns):
        own((memory(array), 0, columns), 0, rows, 0, columns, 16)

    own_all(np.zeros(64, np.float32), 2, 32)
    (code,) = own_all.inspect_llvm().values()
    assert "store atomic" in code and "load atomic" in code
