"""Calibration: ranges of every kind of row, whatever way the data streams in; the four methods; unfit data."""

import itertools

import numpy as np
import pytest

from nbdense._compile import thread_pool
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ACTIVATION, ADD, DENSE, FROZEN_NORM, LAYER_NORM, RESHAPE
from nbdense.layers import Activation, BatchNormalization, Dense, Dropout, Flatten, Input, LayerNormalization, Residual
from nbdense.models import Sequential
from nbdense.quant.calibration.calibration import BATCH, batches, calibrate, check_repeatable, walk
from nbdense.quant.calibration.observers import (
    BINS,
    METHODS,
    Histogram,
    MinMax,
    entropy_range,
    maker,
    mse_range,
    percentile_range,
)

FUNCTIONS = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softmax": lambda z: np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1)[:, None],
    "leaky_relu": lambda z: np.where(z > 0, z, 0.2 * z),
    "silu": lambda z: z / (1 + np.exp(-z)),
}
CLAMPS = {"linear", "relu", "relu6", "hard_tanh"}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def every_kind(dtype="float32"):
    """A model with every kind of row that inference has, some twice, its parameters drawn."""
    model = Sequential(
        [
            Input((3, 5)),
            Activation("tanh"),
            Dense(7, "silu"),
            Residual([Dense(7, "relu"), Dense(7)]),
            Activation("leaky_relu"),
            LayerNormalization(),
            Dense(6, "sigmoid"),
            Dropout(0.5),
            Flatten(),
            BatchNormalization(),
            Dense(17, "relu6"),
            Residual([BatchNormalization(), Dense(17, "leaky_relu")]),
            Dense(4, "softmax"),
        ],
        dtype=dtype,
    )
    rng = np.random.default_rng(3)
    for view in model.network.tensors().values():
        view[...] = np.abs(rng.normal(1, 0.3, view.shape)) if view.ndim == 1 else rng.normal(0, 0.4, view.shape)
    return model


def chain(widths=(6, 40, 30, 4), names=("relu", "tanh", "linear"), seed=2):
    model = Sequential([Input((widths[0],)), *[Dense(n, name) for n, name in zip(widths[1:], names, strict=True)]])
    rng = np.random.default_rng(seed)
    for view in model.network.tensors().values():
        view[...] = rng.normal(0, 0.5, view.shape)
    return model.network


# -- walk --


def test_walk_shows_what_every_row_takes_and_gives(rng):
    model = every_kind("float64")
    network = model.network
    rows = list(network.rows())
    assert {row.kind for row in rows} == {DENSE, ACTIVATION, FROZEN_NORM, LAYER_NORM, ADD, RESHAPE}
    data = rng.normal(size=(BATCH + 7, 3, 5))
    tensors, sizes, outputs = {}, [], []
    for x, values in walk(network, data):
        sizes.append(len(x))
        tensors[0] = x.reshape(-1, 5)
        for row, value in zip(rows, values, strict=True):
            np.testing.assert_array_equal(value.input, tensors[row.input])
            z = value.input
            if row.kind == DENSE:
                z = value.input @ row.kernel + row.bias
                np.testing.assert_allclose(
                    value.pre, FUNCTIONS[row.activation.name](z) if row.activation.name in CLAMPS else z, atol=1e-12
                )
            elif row.kind == ACTIVATION:
                np.testing.assert_array_equal(value.pre, value.input)
            else:
                np.testing.assert_array_equal(value.pre, value.output)
            if row.kind == ADD:
                np.testing.assert_array_equal(value.second, tensors[row.second])
                np.testing.assert_allclose(value.output, value.input + value.second, atol=1e-12)
            elif row.kind == RESHAPE:
                np.testing.assert_array_equal(value.output, value.input.reshape(len(x), -1))
            elif row.kind in (DENSE, ACTIVATION):
                np.testing.assert_allclose(value.output, FUNCTIONS[row.activation.name](z), atol=1e-12)
            tensors[row.output] = value.output.copy()
        outputs.append(values[-1].output.copy())
    assert sizes == [BATCH, 7]
    np.testing.assert_array_equal(np.concatenate(outputs), model.predict(data))


def test_rows_at_a_time_follow_from_the_networks_width(rng):
    wide = Sequential([Input((300, 5)), Dense(200)])
    assert {len(x) for x, _ in walk(wide.network, rng.normal(size=(100, 300, 5)))} < set(range(1, 100))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minmax_of_every_kind_of_row(rng, dtype):
    network = every_kind(dtype).network
    data = rng.normal(size=(60, 3, 5)).astype(dtype)
    ranges = calibrate(network, data)
    ((_, values),) = walk(network, data)
    assert ranges.input == (data.min(), data.max())
    for value, pre, output in zip(values, ranges.pre, ranges.output, strict=True):
        assert pre == (value.pre.min(), value.pre.max())
        assert output == (value.output.min(), value.output.max())


# -- streams --


class Sliced:
    """Something on disk: it can be sliced, and nothing else."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, rows):
        self.most = max(self.most, len(self.array[rows]))
        return self.array[rows]


@pytest.mark.parametrize("method", METHODS)
def test_ranges_do_not_depend_on_how_the_data_comes(rng, method, tmp_path):
    network = chain()
    data = (rng.standard_t(3, size=(2 * BATCH + 77, 6)) * np.geomspace(1e-4, 30, 2 * BATCH + 77)[:, None]).astype("f4")
    expected = calibrate(network, data, method)
    cuts = [0, 1, 2, 50, 50, 700, len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(cuts)]
    np.save(tmp_path / "x.npy", data)
    sliced = Sliced(data)
    for stream in (
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        np.asfortranarray(data),
        data.astype(np.float64),
        data.tolist(),
        sliced,
        parts,
        tuple(part.tolist() for part in parts if len(part)),
        iter(parts),
        (part for part in reversed(parts)),
        lambda: iter(parts),
        lambda: data,
        data[::-1],
    ):
        assert calibrate(network, stream, method) == expected
    assert 0 < sliced.most <= BATCH


@pytest.mark.parametrize("method", METHODS)
def test_ranges_do_not_depend_on_threads(rng, method, monkeypatch):
    network = chain((50, 200, 100, 10))
    data = rng.normal(size=(BATCH + 300, 50))
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(thread_pool, "_chosen", threads)
        found.append(calibrate(network, data, method))
    assert found[0] == found[1]


def test_batches_of_odd_dtypes_and_shapes(rng):
    network = every_kind().network
    data = rng.integers(-3, 4, (20, 3, 5))
    for given in (data.astype(np.int8), data.astype(">f8"), data.astype(np.float16), [data[:7], data[7:]], list(data)):
        (x, *more) = batches(given, network)
        x = np.concatenate([x, *more])
        assert x.dtype == np.float32 and x.flags.c_contiguous
        np.testing.assert_array_equal(x, data.reshape(20, 15))


# -- methods --


def observed(values, method="mse", **options):
    observer = maker(method, **options)()
    observer.update(np.asarray(values, np.float32))
    return observer


def test_histogram_counts_values(rng):
    values = (rng.normal(size=5000) * np.exp(rng.normal(size=5000) * 3)).astype(np.float32)
    values[::7] = 0
    expected = observed(values)
    width = expected.width
    assert BINS / 2 * width <= np.abs(values).max() < BINS * width
    edges = np.arange(-BINS, BINS + 1) * width
    np.testing.assert_array_equal(expected.counts, np.histogram(values[values != 0], edges)[0])
    assert expected.zeros == (values == 0).sum()
    assert (expected.low, expected.high) == (values.min(), values.max())
    for order in (np.argsort(np.abs(values)), rng.permutation(5000)):
        observer = Histogram(mse_range)
        for part in np.array_split(values[order], 37):
            observer.update(part)
        np.testing.assert_array_equal(observer.counts, expected.counts)
        assert (observer.width, observer.zeros) == (width, expected.zeros)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 1e38])
@pytest.mark.parametrize("method", METHODS)
def test_ranges_scale_with_the_values(rng, method, size):
    """A power of two changes nothing; other factors move the bins."""
    values = rng.normal(size=3000).astype(np.float32)
    values = values / np.abs(values).max()
    expected = np.array(observed(values, method).range())
    np.testing.assert_array_equal(observed(values * np.float32(2**-60), method).range(), expected * 2**-60)
    found = np.array(observed(values * np.float32(size), method).range())
    assert np.isfinite(found).all() and found[0] < 0 < found[1]
    if size > 1e-40:
        np.testing.assert_allclose(found / size, expected, rtol=0.3 if method == "entropy" else 0.05)


@pytest.mark.parametrize("values", [[0.0], [-0.0, 0.0], [3.5] * 9, [-2.0], [1e-45], [-3e38]])
@pytest.mark.parametrize("method", METHODS)
def test_constant_values_are_their_own_range(method, values):
    assert observed(values, method).range() == (np.float32(values[0]), np.float32(values[0]))


@pytest.mark.parametrize("values", [[0, 0, 1], [5, 5, 6], [-6, -5.5, -5], [-1, 0, 1], [1e-40, 1], [-1e-3, 1000, 1000]])
@pytest.mark.parametrize("method", METHODS)
def test_few_values(method, values):
    values = np.array(values, np.float32)
    low, high = observed(values, method).range()
    assert min(values) <= low <= high <= max(values)
    assert max(-low, high) > 0.9 * np.abs(values).max()


def test_percentile(rng):
    values = rng.standard_t(4, 20000)
    for percentile in (50, 99, 99.99):
        end = np.percentile(np.abs(values), percentile)
        low, high = observed(values, "percentile", percentile=percentile).range()
        np.testing.assert_allclose(max(-low, high), end, rtol=0.01)
        assert min(-low, high) == min(max(-low, high), -np.float32(values.min()), np.float32(values.max()))
        # On one side only, and untouched by relu's zeros.
        zeros = np.concatenate([np.abs(values), np.zeros(90000)])
        low, high = observed(zeros, "percentile", percentile=percentile).range()
        assert low == 0 and abs(high - end) < 0.01 * end
    assert observed(values, "percentile", percentile=100).range() == (
        np.float32(values.min()),
        np.float32(values.max()),
    )


def error_of(values, low, high, levels):
    """Mean squared error of affine quantization with a level at 0."""
    low, high = min(low, 0), max(high, 0)
    step = (high - low) / (levels - 1)
    zero = np.rint(-low / step)
    return np.square(values - step * (np.clip(np.rint(values / step) + zero, 0, levels - 1) - zero)).mean()


@pytest.mark.parametrize("levels", [16, 256])
@pytest.mark.parametrize("shape", ["normal", "relu", "heavy", "lopsided", "outlier", "uniform"])
def test_mse_is_as_good_as_the_best_of_a_grid(rng, shape, levels):
    values = {
        "normal": rng.normal(size=20000),
        "relu": np.maximum(rng.normal(size=20000), 0),
        "heavy": rng.standard_t(2, 20000),
        "lopsided": np.where(rng.random(20000) < 0.1, -rng.exponential(0.2, 20000), rng.exponential(3, 20000)),
        "outlier": np.append(rng.normal(size=20000), 40.0),
        "uniform": rng.uniform(-1, 3, 20000),
    }[shape].astype(np.float32)
    low, high = observed(values, "mse", levels=levels).range()
    assert values.min() <= low <= high <= values.max()
    shares = np.geomspace(0.02, 1, 40)
    lows = values.min() * shares if values.min() < 0 else [0.0]
    best = min(error_of(values, a, b, levels) for a in lows for b in values.max() * shares)
    assert error_of(values, low, high, levels) <= 1.03 * best


def test_entropy_cuts_off_a_long_tail_and_nothing_else(rng):
    values = rng.normal(size=200_000)
    cut = observed(np.append(values, [60.0]), "entropy").range()[1]
    assert 3 < cut < 20
    evenly = rng.uniform(0, 1, 200_000)
    assert observed(evenly, "entropy").range() == (np.float32(evenly.min()), np.float32(evenly.max()))
    two = np.concatenate([rng.uniform(0, 0.1, 1000), rng.uniform(0.9, 1.0, 1000)])
    assert observed(two, "entropy").range()[1] > 0.99


def test_entropy_does_not_see_relus_zeros(rng):
    values = np.abs(rng.standard_t(3, 20000))
    without = observed(values, "entropy").range()
    low, high = observed(np.append(values, np.zeros(500_000)), "entropy").range()
    assert low == 0 and high == without[1]


def test_entropy_does_not_cut_a_softmax_off():
    rng = np.random.default_rng(2)
    logits = 6 * rng.normal(size=(3000, 10))
    low, high = observed(FUNCTIONS["softmax"](logits), "entropy").range()
    assert low < 1e-6 and high > 0.9


def test_entropy_against_plain_loops(rng):
    """The divergence of every threshold, as the slides give it, one bin at a time."""
    observer = observed(rng.standard_t(3, 4000), "entropy")
    counts, levels = observer.counts.copy(), 512
    counts[BINS] = min(counts[BINS : BINS + 2])
    counts[BINS - 1] = min(counts[BINS - 2 : BINS])
    first, last = np.flatnonzero(counts)[[0, -1]]
    sides = BINS - first, last + 1 - BINS

    def divergence(i):
        begin, end = BINS - min(i, sides[0]), BINS + min(i, sides[1])
        p = [float(counts[j]) for j in range(begin, end)]
        q = [0.0] * len(p)
        for level in range(levels):
            bins = [j for j in range(len(p)) if j * levels // len(p) == level and p[j] > 0]
            for j in bins:
                q[j] = sum(p[k] for k in bins) / len(bins)
        q = np.array(q) / sum(q)
        filled = np.flatnonzero(p)
        p[filled[0]] += counts[:begin].sum()
        p[filled[-1]] += counts[end:].sum()
        p = np.array(p) / sum(p)
        return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    _, high = entropy_range(observer, levels)
    chosen = round(high / observer.width) if high < observer.high else max(sides)
    tried = [*range(300, max(sides), 90), max(sides)]
    assert divergence(chosen) <= min(divergence(i) for i in tried) + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_dead_units_and_constant_data(method):
    network = chain((6, 8, 5, 4), ("relu", "relu", "tanh"))
    dense = [row for row in network.rows() if row.kind == DENSE]
    dense[0].bias[...] = -1000
    dense[1].bias[...] = [-1.0, -0.5, 0.3, 0.6, 0.7]
    ranges = calibrate(network, np.full((9, 6), 0.5), method)
    assert ranges.input == (0.5, 0.5)
    assert ranges.output[0] == (0.0, 0.0)
    bias = np.maximum(dense[1].bias, 0)
    assert min(bias) <= ranges.output[1][0] <= ranges.output[1][1] <= max(bias)
    assert ranges.output[1][1] > 0.9 * max(bias) > 0


def test_every_activation_is_watched_before_and_after(rng):
    for name in ACTIVATIONS:
        network = chain((4, 9), (name,))
        ranges = calibrate(network, rng.normal(size=(30, 4)))
        keeps_ends = name in {*CLAMPS, "hard_shrink"}
        assert (ranges.pre == ranges.output) == keeps_ends


# -- errors --


HIDDEN = np.ma.masked_equal(np.arange(6000).reshape(1000, 6), 5555)


class Slices:
    """Data that is no array, but gives some when it is sliced; netCDF's variables give masked ones."""

    def __init__(self, array):
        self.shape, self.dtype, self.array = array.shape, array.dtype, array

    def __getitem__(self, rows):
        return self.array[rows]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, TypeError, "expected numbers"),
        ("text", TypeError, "expected numbers"),
        ({"x": [[1.0] * 6]}, TypeError, "expected numbers"),
        ([], ValueError, "the data is empty"),
        (np.zeros((0, 6)), ValueError, "the data is empty"),
        ([np.zeros((0, 6)), np.zeros((0, 6))], ValueError, "the data is empty"),
        (iter(()), ValueError, "the data is empty"),
        (list, ValueError, "the data is empty"),
        (np.zeros((4, 5)), ValueError, r"calibration: Dense layer 'dense' expects shape \(rows, 6\), got \(4, 5\)"),
        (np.zeros(6), ValueError, r"one row is x.reshape\(1, -1\)"),
        (3.0, ValueError, r"got \(\)"),
        ([np.zeros((4, 6)), np.zeros((4, 5))], ValueError, r"calibration batch 1: .*got \(4, 5\)"),
        (iter([np.zeros(6)]), ValueError, r"calibration batch 0: .*got \(6,\)"),
        (([np.zeros((4, 6)), np.zeros(4)] for _ in range(2)), ValueError, "calibration batch 0: .*inputs alone"),
        ([[1.0] * 6, [1.0]], ValueError, "its rows differ in shape"),
        (np.zeros((3, 6), complex), TypeError, "complex"),
        (np.where(np.arange(6000).reshape(1000, 6) == 5555, np.nan, 0), ValueError, "row 925, column 5"),
        ([np.zeros((4, 6)), np.full((4, 6), np.inf)], ValueError, "calibration batch 1: .*row 0, column 0"),
        (np.full((1, 6), 1e39), ValueError, r"infinity \(in float32\)"),
        (HIDDEN, ValueError, "calibration: masked element in row 925, column 5"),
        ([np.zeros((4, 6)), HIDDEN], ValueError, "calibration batch 1: masked element in row 925, column 5"),
        (list(HIDDEN), ValueError, "calibration: masked element in row 925, column 5"),  # a list of rows
        (Slices(HIDDEN), ValueError, "calibration: masked element in row 925, column 5"),
    ],
)
def test_unfit_data(data, error, message):
    with pytest.raises(error, match=message):
        calibrate(chain(), data)


def test_unfit_options_and_networks(rng):
    network, data = chain(), rng.normal(size=(5, 6))
    for options, message in [
        ({"method": "median"}, "'minmax' or 'percentile' or 'mse' or 'entropy', got 'median'"),
        ({"percentile": 0}, r"percentile must lie in \(0, 100\], got 0"),
        ({"percentile": 101}, "percentile"),
        ({"percentile": "99"}, "percentile"),
        ({"levels": 1}, "levels must be a whole number of at least 2, got 1"),
        ({"levels": 2.5}, "levels"),
    ]:
        with pytest.raises(ValueError, match=message):
            calibrate(network, data, **options)
    for name, size in (("d", 1e30), ("e", np.nan)):
        list(network.rows())[1].kernel[...] = size
        for method in METHODS:
            with pytest.raises(ValueError, match="layer 'dense_1': its outputs .* not finite"):
                calibrate(network, data * 1e30 if name == "d" else data, method)


def test_iterators_are_good_for_one_pass_only(rng):
    data = rng.normal(size=(5, 6))
    for fine in (data, [data], (data,), lambda: iter([data])):
        check_repeatable(fine, "gptq")
    for once in (iter([data]), (x for x in [data]), map(np.abs, [data])):
        with pytest.raises(ValueError, match="gptq goes through the data more than once.*pass a list of batches"):
            check_repeatable(once, "gptq")


def test_minmax_keeps_no_histogram():
    assert type(maker("minmax")()) is MinMax
    assert percentile_range(observed([1.0, 2.0]), 100) == (1.0, 2.0)
