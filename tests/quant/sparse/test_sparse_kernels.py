"""Kernels of sparse products against NumPy in float64, and against its integers: every form, in every order of work."""

import numpy as np
import pytest

from nbdense._compile.policy import JIT
from nbdense.quant.kernels.microkernel import GROUP, OFFSET
from nbdense.quant.kernels.sparse import sparse_columns, sparse_integer_product, sparse_row
from nbdense.quant.kernels.sparse_formats import SparseKernels, blocks_of
from nbdense.quant.kernels.sparse_tiles import INTEGER_ROWS, LANES, OUTPUTS, WIDEST, WINDOW
from nbdense.quant.kernels.tables import SPARSE_COLUMNS, SPARSE_ROWS
from nbdense.quant.layers.float_layers import FloatLayer
from nbdense.quant.layers.layout import Layout
from tests.reference import naive
from tests.support.compiled import compiled

WIDTHS = [1, 4, 8, 16]
SHAPES = [
    *[(m, n_out, n_in) for m, n_out, n_in in naive.draw_shapes(np.random.default_rng(5), 8)],
    *[
        (m, n_out, WINDOW + d)
        for m, n_out, d in [(1, 17, -1), (3, LANES, 0), (LANES + 1, 2 * LANES + 1, 1), (64, 5, 40)]
    ],
]
CASES = [(width, *shape, density) for width in WIDTHS for shape, density in zip(SHAPES, [0, 0.1, 0.5, 1] * 9)]  # noqa: B905
EPS = float(np.finfo(np.float32).eps)


@compiled
def columns(layers, index, engine_rows, sparse, work, source, target, stride, m):
    row = layers[index]
    sparse_columns(row, engine_rows[row["engine_row"]], sparse, work, source, target, stride, m)


@compiled
def rows(layers, index, sparse, x, out, sums):
    row = layers[index]
    for i in range(x.shape[0]):
        sparse_row(row, sparse, x.reshape(x.size), i * row["n_in"], out, i * row["n_out"], sums)


@compiled
def integers(layers, index, m, n, x, w, sparse, bias, tile, ld):
    sparse_integer_product(m, 0, n, x, w, sparse, layers[index], bias, tile, ld)


def draw(rng, width, n_in, n_out, density, dtype=np.float32):
    """A kernel of blocks, some inputs and outputs of which have no weights; zeros within blocks, too."""
    blocks = rng.random((n_in, -(-n_out // width))) < density
    blocks[rng.integers(n_in)] = False
    blocks[:, rng.integers(blocks.shape[1])] = False
    mask = np.repeat(blocks, width, axis=1)[:, :n_out]
    if dtype == np.int8:
        return (rng.integers(-128, 128, (n_in, n_out)) * mask).astype(np.int8)
    kernel = rng.normal(size=(n_in, n_out)) * mask
    return np.where(rng.random(kernel.shape) < 0.05, 0, kernel).astype(dtype)


def laid_out(kernel, bias, width, few, activation):
    """The program of one layer: its row's number, its tables and vectors."""
    n_in, n_out = kernel.shape
    layer = FloatLayer("d", "dense", n_in, {"kernel": kernel, "bias": bias}, activation)
    sparse = SparseKernels({0: blocks_of(kernel, width)}, few)
    layout = Layout([(1, n_in), (1, n_out)], [None, None], [(0,)], [(None,)], "int8", "onnx", sparse)
    layer.lay_out(layout, 0)
    layers, _, _ = layout.tables(False)
    (index,) = np.flatnonzero(layers["kind"] == (SPARSE_ROWS if few else SPARSE_COLUMNS))
    return int(index), layers, layout.floats()[0], layout.sparse_vectors()


def smaller(*sizes):
    """Sizes that plain Python is quick with."""
    return sizes if JIT else tuple(min(size, 40) for size in sizes)


def close(got, x, kernel, bias, clamped):
    expected = x.astype(np.float64) @ kernel + bias
    expected = np.maximum(expected, 0) if clamped else expected
    assert (np.abs(got - expected) <= 4 * EPS * (np.abs(x).astype(np.float64) @ np.abs(kernel) + np.abs(bias))).all()


@pytest.mark.kernels
@pytest.mark.parametrize("width, m, n_out, n_in, density", CASES)
def test_many_rows_feature_by_feature(width, m, n_out, n_in, density):
    rng = np.random.default_rng([width, m, n_out, n_in])
    m, n_out, n_in = smaller(m, n_out, n_in)
    kernel, bias = draw(rng, width, n_in, n_out, density), rng.normal(size=n_out).astype(np.float32)
    x = rng.normal(size=(m, n_in)).astype(np.float32)
    index, layers, engine_rows, sparse = laid_out(kernel, bias, width, False, "relu")
    stride, written = -(-m // 16) * 16 + 16, -(-n_out // width) * width
    work = np.full((n_in + written + 1) * stride, 9, np.float32)
    work[: n_in * stride].reshape(n_in, stride)[:, :m] = x.T
    before = work.copy()
    columns(layers, index, engine_rows, sparse, work, 0, n_in * stride, stride, m)
    out = work[n_in * stride :].reshape(written + 1, stride)
    close(out[:n_out, :m].T, x, kernel, bias, True)
    assert (out[written] == 9).all() and (out[:, stride - 16 :] == 9).all()
    np.testing.assert_array_equal(work[: n_in * stride], before[: n_in * stride])


@pytest.mark.kernels
@pytest.mark.parametrize("width, m, n_out, n_in, density", CASES)
def test_few_rows_as_they_lie(width, m, n_out, n_in, density):
    """No input behind the last is read: it lies at the end of the array."""
    rng = np.random.default_rng([width, m, n_out, n_in, 1])
    m, n_out, n_in = smaller(min(m, 5), n_out, n_in)
    kernel, bias = draw(rng, width, n_in, n_out, density), rng.normal(size=n_out).astype(np.float32)
    x = rng.normal(size=(m, n_in)).astype(np.float32)
    index, layers, _, sparse = laid_out(kernel, bias, width, True, "linear")
    out = np.full(m * n_out + 1, 9, np.float32)
    rows(layers, index, sparse, x, out, np.zeros(WIDEST, np.float32))
    close(out[:-1].reshape(m, n_out), x, kernel, bias, False)
    assert out[-1] == 9


@pytest.mark.kernels
@pytest.mark.parametrize("m", sorted({rows + d for rows in INTEGER_ROWS for d in (-1, 0, 1)} - {0}))
@pytest.mark.parametrize("n_out, n_in, density", [(1, 1, 1), (16, 7, 0.3), (35, 50, 0.2), (100, 9, 0), (48, 33, 1)])
def test_integers(m, n_out, n_in, density):
    """Bytes behind the depth of X are drawn; sums wrap."""
    rng = np.random.default_rng([m, n_out, n_in])
    kernel = draw(rng, OUTPUTS, n_in, n_out, density, np.int8)
    blocks = blocks_of(kernel, OUTPUTS, GROUP)
    layout = Layout([(1, n_in)], [None], [], [], "int8", "onnx", SparseKernels({0: blocks}, True))
    layers = np.zeros(1, [("indices", np.int64), ("starts", np.int64)])
    layers[0] = layout.put("indices", blocks.indices), layout.put("integers", blocks.starts)
    packed = np.ascontiguousarray(blocks.values.reshape(-1, GROUP, OUTPUTS).transpose(0, 2, 1)).reshape(-1)
    ld, columns_ = -(-n_in // GROUP) * GROUP, -(-n_out // OUTPUTS) * OUTPUTS
    x = rng.integers(0, 256, (m, ld)).astype(np.uint8)
    bias = np.zeros(columns_, np.int32)
    start = rng.integers(-(2**31), 2**31, n_out)
    bias[:n_out] = (start + OFFSET * kernel.sum(axis=0, dtype=np.int64)).astype(np.int32)
    tile = np.full((m + 1) * 128, 9, np.int32)
    operands = (x.reshape(-1), 0, ld), (packed, 0), layout.sparse_vectors(), (bias, 0)
    integers(layers, 0, m, n_out, *operands, tile, 128)
    expected = (x[:, :n_in].astype(np.int64) @ kernel.astype(np.int64) + start).astype(np.int32)
    np.testing.assert_array_equal(tile.reshape(m + 1, 128)[:m, :n_out], expected)
    assert (tile[m * 128 :] == 9).all()


@pytest.mark.kernels
@pytest.mark.parametrize("height, width", [(1, 1), (1, 8), (4, 16)])
@pytest.mark.parametrize("n_in, n_out", [(1, 1), (9, 17), (64, 40)])
def test_blocks_give_the_kernel_back(n_in, n_out, height, width):
    rng = np.random.default_rng([n_in, n_out, width])
    kernel = draw(rng, width, n_in, n_out, 0.4)
    blocks = blocks_of(kernel, width, height)
    np.testing.assert_array_equal(blocks.kernel(), kernel)
    assert (blocks.values != 0).any(axis=1).all() and blocks.starts[-1] == len(blocks.values) == len(blocks.indices)


@pytest.mark.kernels
def test_an_activation_that_is_no_clamp():
    rng = np.random.default_rng(3)
    kernel, x = draw(rng, 1, 7, 5, 0.5), rng.normal(size=(9, 7)).astype(np.float32)
    index, layers, engine_rows, sparse = laid_out(kernel, np.zeros(5, np.float32), 1, False, "sigmoid")
    work = np.zeros(12 * 16, np.float32)
    work[: 7 * 16].reshape(7, 16)[:, :9] = x.T
    columns(layers, index, engine_rows, sparse, work, 0, 7 * 16, 16, 9)
    got = work[7 * 16 :].reshape(5, 16)[:, :9].T
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-(x.astype(np.float64) @ kernel))), rtol=1e-6)
