"""The integer microkernel against NumPy's integers: every way of multiplying that this machine has, to the last bit."""

import numpy as np
import pytest

from nbdense._compile import processor
from nbdense._compile.policy import JIT, switch
from nbdense.quant.kernels import microkernel
from nbdense.quant.kernels.microkernel import (
    GROUP,
    LANES,
    METHOD,
    OFFSET,
    ROWS,
    TILES,
    VECTOR_BYTES,
    integer_product,
    make_tile,
    pack,
    take_zero_points_off,
)
from tests.reference import naive
from tests.support.compiled import compiled

COLUMNS, LD = 16, 160  # what operands are padded to; columns of the tile
SIZES = sorted({rows + d for rows in ROWS for d in (-1, 0, 1)} - {0})
CASES = [
    *[(m % 24 + 1, min(n, 128), depth) for m, n, depth in naive.draw_shapes(np.random.default_rng(1), 12)],
    *[(m, 2 * LANES + d, 5) for m in SIZES for d in (-1, 0, 1)],
    *[(1, n, depth) for n in (1, LANES, 4 * LANES, 8 * LANES, 127, 128) for depth in (1, 4)],
    *[(5, 17, depth) for depth in range(1, 10)],
]
ENDS = [(255, 127), (255, -127), (255, -128), (0, -128)]

# Ways that the CPU which is compiled for can execute, beside the one that it is given.
WAYS = [(METHOD, VECTOR_BYTES), ("portable", 16)]
if METHOD == "vnni":
    WAYS += [("vnni", 32), ("pmaddwd", 32)]
if METHOD in ("usdot", "sdot"):
    WAYS += [("sdot", 16), ("sadalp", 16)]
if METHOD in ("vnni", "pmaddwd"):
    WAYS.append(("pmaddwd", 16))
WAYS = sorted(set(WAYS))
WAY_TILES = {
    f"_way_{i}_{rows}": make_tile(rows, 2, method, width) for i, (method, width) in enumerate(WAYS) for rows in (1, 4)
}
globals().update(TILES, **WAY_TILES)
ALL_TILES = [*TILES, *WAY_TILES]
_run = switch("_run", dict(enumerate(ALL_TILES)), "groups, x, w, bias, out", "{f}(groups, x, w, bias, out)", globals())


@compiled
def multiply(m, n, depth, x, w, bias, tile, ld):
    integer_product(m, n, depth, x, w, bias, tile, ld)


@compiled
def multiply_less_zero_points(m, n, depth, x, w, bias, zero_points, tile, ld):
    integer_product(m, n, depth, x, w, bias, tile, ld)
    take_zero_points_off(m, n, depth, x, zero_points, tile, ld)


@compiled
def run_tile(code, groups, x, w, bias, out):
    _run(code, groups, x, w, bias, out)


def wrapped(sums):
    return sums.astype(np.int64).astype(np.int32)


def laid_out(rng, x, kernel, bias):
    """Operands with gaps, at odd offsets; what lies behind the depth of X is drawn."""
    (m, depth), n = x.shape, kernel.shape[1]
    groups, columns = -(-depth // GROUP), -(-n // COLUMNS) * COLUMNS
    ld = groups * GROUP + 3
    flat_x = rng.integers(0, 256, 5 + m * ld).astype(np.uint8)
    flat_x[5:].reshape(m, ld)[:, :depth] = x
    flat_w = np.full(7 + groups * columns * GROUP, 99, np.int8)
    packed = np.zeros((groups, columns, GROUP), np.int8)
    pack(kernel, packed)
    flat_w[7:] = packed.ravel()
    flat_bias = np.zeros(3 + columns, np.int32)
    flat_bias[3 : 3 + n] = wrapped(bias + OFFSET * kernel.sum(axis=0, dtype=np.int64))
    return (flat_x, 5, ld), (flat_w, 7, columns * GROUP), (flat_bias, 3)


def product_of(rng, x, kernel, bias):
    """Return the sums of `integer_product`, having checked that it leaves all else of the tile."""
    (m, depth), n = x.shape, kernel.shape[1]
    tile = np.full((m + 1) * LD, 9, np.int32)
    multiply(m, n, depth, *laid_out(rng, x, kernel, bias), tile, LD)
    rows = tile.reshape(m + 1, LD)
    whole = -(-n // COLUMNS) * COLUMNS
    assert (rows[m] == 9).all() and (rows[:, whole:] == 9).all()
    return rows[:m, :n]


def expected_of(x, kernel, bias):
    return wrapped(x.astype(np.int64) @ kernel.astype(np.int64) + bias)


def draw(rng, m, n, depth):
    x, kernel = rng.integers(0, 256, (m, depth)), rng.integers(-128, 128, (depth, n))
    return x.astype(np.uint8), kernel.astype(np.int8), rng.integers(-(2**31), 2**31, n).astype(np.int32)


@pytest.mark.kernels
@pytest.mark.parametrize("m, n, depth", CASES)
def test_drawn_shapes(m, n, depth):
    rng = np.random.default_rng([m, n, depth])
    if not JIT:
        m, n, depth = min(m, 3), min(n, 5), min(depth, 9)
    operands = draw(rng, m, n, depth)
    np.testing.assert_array_equal(product_of(rng, *operands), expected_of(*operands))


@pytest.mark.kernels
@pytest.mark.parametrize("m, n, depth", CASES[::3])
def test_zero_points_of_columns(m, n, depth):
    """Values behind the depth of X do not count."""
    rng = np.random.default_rng([m, n, depth, 2])
    if not JIT:
        m, n, depth = min(m, 3), min(n, 5), min(depth, 9)
    x, kernel, _ = draw(rng, m, n, depth)
    zeros = rng.integers(-128, 128, n)
    bias, tile = rng.integers(-9999, 9999, n), np.full(m * LD, 9, np.int32)
    # As programs have it, the bias makes up for OFFSET with the weights less their zero points.
    weights = kernel.astype(np.int64) - zeros
    x_laid, w_laid, (flat_bias, at) = laid_out(rng, x, kernel, bias)
    flat_bias[at : at + n] = bias + OFFSET * weights.sum(axis=0)
    flat_zeros = np.concatenate([[5, 5], zeros]).astype(np.int32)
    multiply_less_zero_points(m, n, depth, x_laid, w_laid, (flat_bias, at), (flat_zeros, 2), tile, LD)
    np.testing.assert_array_equal(tile.reshape(m, LD)[:, :n], x.astype(np.int64) @ weights + bias)


@pytest.mark.kernels
@pytest.mark.parametrize("value, weight", ENDS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 8, 1009])
def test_extremes_do_not_saturate(value, weight, depth):
    """Two products of 255 x 127 pass int16: an instruction that saturates there would show."""
    rng = np.random.default_rng(2)
    m, n = (ROWS[0] + 1, 35) if JIT else (1, 3)
    x, kernel = np.full((m, depth), value, np.uint8), np.full((depth, n), weight, np.int8)
    got = product_of(rng, x, kernel, np.zeros(n, np.int32))
    assert (got == value * weight * depth).all()


@pytest.mark.kernels
def test_sums_wrap():
    """Past int32 they go on modulo 2**32, in either direction."""
    rng = np.random.default_rng(3)
    depth = 70_001 if JIT else 9
    x, kernel = np.full((2, depth), 255, np.uint8), np.full((depth, 18), 127, np.int8)
    kernel[:, 1::2] = -128
    bias = np.full(18, 2**31 - 1, np.int32)
    bias[1::2] = -(2**31)
    np.testing.assert_array_equal(product_of(rng, x, kernel, bias), expected_of(x, kernel, bias))


@pytest.mark.parametrize("code", range(len(ALL_TILES)), ids=ALL_TILES)
def test_tile_equals_its_twin(code):
    rng = np.random.default_rng(4)
    tile = globals()[ALL_TILES[code]]
    twin = tile.twin if JIT else tile
    for depth in (1, 3, 4, 21):
        x, kernel, bias = draw(rng, ROWS[0], 8 * COLUMNS, depth)
        x[0], kernel[:, 0] = 255, -128
        operands = laid_out(rng, x, kernel, bias)
        got, expected = (np.full(ROWS[0] * LD, 9, np.int32) for _ in range(2))
        groups = -(-depth // GROUP)
        run_tile(code, groups, *operands, (got, 1, LD))
        with np.errstate(over="ignore"):
            twin(groups, *operands, (expected, 1, LD))
        np.testing.assert_array_equal(got, expected)
        assert (got != 9).any()


@pytest.mark.kernels
def test_pack_puts_four_of_a_column_side_by_side():
    kernel = np.arange(1, 11, dtype=np.int8).reshape(5, 2)
    out = np.zeros((2, 3, GROUP), np.int8)
    pack(kernel, out)
    assert out.tolist() == [[[1, 3, 5, 7], [2, 4, 6, 8], [0] * 4], [[9, 0, 0, 0], [10, 0, 0, 0], [0] * 4]]


@pytest.mark.kernels
def test_the_way_follows_the_cpu():
    """Code is compiled for numba's target, and a CPU of that name without these instructions could not run it."""
    name, features = processor.name_and_features()
    if processor.is_arm64():
        ways = {"i8mm": "usdot", "dotprod": "sdot"}
        expected = next((way for feature, way in ways.items() if f"+{feature}" in features), "sadalp"), 16
    else:
        known = {"generic": ("pmaddwd", 16), "haswell": ("pmaddwd", 32), "znver4": ("vnni", 64)}
        expected = known.get(name, microkernel.instructions())
    assert (METHOD, VECTOR_BYTES) == microkernel.instructions() == expected
