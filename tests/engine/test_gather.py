"""Reading the user's data where it lies: every dtype and memory layout gives NumPy's own conversion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nbdense import _checks
from nbdense._compile.policy import JIT
from nbdense.engine.kernels.gather import DTYPES, convert, gather
from tests.support.compiled import compiled

NAMES = [*(str(dtype) for dtype in DTYPES), ">f4", ">f8", ">i2", "longdouble"]
LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "rows reversed": lambda a: a[::-1],
    "columns reversed": lambda a: a[:, ::-1],
    "both reversed": lambda a: a[::-1, ::-1],
    "every second column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "every second row": lambda a: np.repeat(a, 2, axis=0)[1::2],
    "inside a larger array": lambda a: np.pad(a, 2)[2:-2, 2:-2],
    "one row repeated": lambda a: np.broadcast_to(a[0], a.shape),
    "read-only": lambda a: _locked(a),
}


@compiled
def converted(code, data, start, stride, count, out, offset):
    convert(code, data, start, stride, count, out, offset)


@compiled
def gather_rows(data, form, order, out):
    """Rows of a source in some order into the matrix ``out``."""
    gather(data, form[0], order, out.shape[0], out.reshape(out.size), np.int64(0), out.shape[1], np.int64(1))


def _locked(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def gathered(array, dtype):
    memory, form = _checks.source(array)
    out = np.full(array.shape, 7, dtype)
    gather_rows(memory, form, np.arange(len(array)), out)
    return out, memory


def draw(name, shape, rng):
    """Numbers over the whole range of an integer type, or about 0; the extremes are among them."""
    dtype = np.dtype(name)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, shape, dtype.newbyteorder("="), endpoint=True)
        values[0, :2] = limits.min, limits.max
        return values.astype(dtype)
    return (rng.normal(size=shape) * 100).astype(dtype)


@pytest.mark.kernels
@pytest.mark.parametrize("engine", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes_and_layouts(name, layout, engine):
    array = LAYOUTS[layout](draw(name, (7, 5), np.random.default_rng(1)))
    before = array.copy()
    got, memory = gathered(array, engine)
    np.testing.assert_array_equal(got, array.astype(engine))
    np.testing.assert_array_equal(array, before)
    if array.dtype in DTYPES:
        assert np.shares_memory(memory, array), "the data was copied"


@st.composite
def views(draw):
    """A matrix somewhere in an array of up to three axes: any slices, any order of its axes, any dtype."""
    dtype = draw(st.sampled_from([name for name in NAMES if name != "longdouble"]))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=6))
    whole = draw(hnp.arrays(dtype, shape))
    view = whole[draw(hnp.basic_indices(shape, min_dims=2, max_dims=2))]
    return view.T if draw(st.booleans()) else view


@pytest.mark.kernels
@given(views(), st.data(), st.sampled_from([np.float32, np.float64]))
def test_drawn_rows_of_drawn_views_are_as_numpy_indexes_them(view, data, engine):
    order = np.array(data.draw(st.lists(st.integers(0, len(view) - 1), max_size=8) if len(view) else st.just([])), int)
    memory, form = _checks.source(view)
    out = np.full((len(order), view.shape[1]), 7, engine)
    gather_rows(memory, form, order, out)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out, view.astype(engine)[order])


@pytest.mark.kernels
def test_rows_from_the_middle():
    array = np.arange(60.0).reshape(12, 5)[::-1]
    memory, form = _checks.source(array)
    out = np.zeros((4, 5), np.float32)
    gather_rows(memory, form, np.arange(3, 7), out)
    np.testing.assert_array_equal(out, array[3:7])


@pytest.mark.kernels
def test_misaligned():
    raw = np.zeros(4 * 6 + 1, np.uint8)
    array = raw[1:].view(np.float32).reshape(2, 3)
    array[...] = np.arange(6).reshape(2, 3) + 0.5
    assert not array.flags.aligned
    np.testing.assert_array_equal(gathered(array, np.float32)[0], array)


@pytest.mark.kernels
@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name):
    assert gathered(np.zeros((0, 5), name), np.float32)[0].shape == (0, 5)


def test_read_only_memmap(tmp_path):
    expected = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", expected)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    got, memory = gathered(array, np.float32)
    np.testing.assert_array_equal(got, expected)
    assert np.shares_memory(memory, array)


def test_memory_outlives_its_array():
    """The source keeps what it reads alive, however the caller came by it."""
    memory, form = _checks.source(np.full((50, 1000), 3.0))
    others = [np.full((50, 1000), 4.0) for _ in range(4)]
    out = np.zeros((50, 1000), np.float32)
    gather_rows(memory, form, np.arange(50), out)
    assert (out == 3.0).all() and others


@pytest.mark.parametrize("engine", [np.float32, np.float64])
def test_every_float16(engine):
    """Denormals, infinities and NaN too."""
    array = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(gathered(array, engine)[0], array.astype(engine))


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_specials(name):
    limits = np.finfo(name)
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, limits.smallest_subnormal, limits.max, limits.tiny]
    array = np.array([values], name)
    with np.errstate(all="ignore"):
        expected = array.astype(np.float32)
    got, _ = gathered(array, np.float32)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got[0, 1:]), np.signbit(expected[0, 1:]))


@pytest.mark.skipif(not JIT, reason="without the JIT it is its twin")
@pytest.mark.parametrize("engine", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", list(DTYPES), ids=str)
def test_convert_equals_its_twin(dtype, engine):
    rng = np.random.default_rng(3)
    data = draw(str(dtype), (3, 11), rng).view(np.uint8).ravel()
    size = dtype.itemsize
    for start, stride, count in [(0, size, 33), (3 * size, 2 * size, 9), (32 * size, -3 * size, 10), (5 * size, 0, 4)]:
        out = np.full((2, 40), 7, engine)
        converted(DTYPES[dtype], data, start, stride, count, out[0], 2)
        convert.twin(DTYPES[dtype], data, start, stride, count, out[1], 2)
        np.testing.assert_array_equal(out[0], out[1])
