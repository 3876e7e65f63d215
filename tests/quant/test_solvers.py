"""Solvers for weights: scales, GPTQ, equalisation and bias correction, against plain NumPy and on hard cases."""

import itertools

import numpy as np
import pytest

from nbdense._compile import thread_pool
from nbdense.engine.rows import DENSE
from nbdense.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    LayerNormalization,
    LeakyReLU,
    ReLU,
    Residual,
)
from nbdense.models import Sequential
from nbdense.quant.conversion.bias_correction import Mean, input_means, shift
from nbdense.quant.conversion.equalization import equalize
from nbdense.quant.kernels import solvers
from nbdense.quant.weights.gptq import Moments, best_scales, dequantize, input_moments, nearest, solve


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def correlated(rng, rows, n_in, rank=None):
    """Inputs of which the first few directions have most of the variance."""
    mix = rng.normal(size=(rank or n_in, n_in)) * np.geomspace(1, 0.02, rank or n_in)[:, None]
    return rng.normal(size=(rows, rank or n_in)) @ mix


def moments_of(x):
    moments = Moments(x.shape[1])
    moments.update(x)
    return moments.matrix()


def error_of(x, kernel, integers, scales, block_size=None):
    return np.square(x @ (dequantize(integers, scales, block_size) - kernel)).sum()


# -- moments --


@pytest.mark.parametrize("shape", [(1, 1), (3, 47), (50, 49), (7, 130), (1100, 97)])
def test_moments(rng, shape):
    x = rng.normal(size=shape) + 1
    np.testing.assert_allclose(moments_of(x), 2 / len(x) * x.T @ x, rtol=1e-12, atol=1e-12)
    parts = Moments(shape[1])
    for part in np.array_split(x, 5):
        parts.update(part)
    assert parts.rows == len(x)
    np.testing.assert_array_equal(parts.matrix(), moments_of(x))
    np.testing.assert_array_equal(parts.matrix(), parts.matrix().T)


def test_no_rows_have_no_moments():
    with pytest.raises(ValueError, match="no rows"):
        Moments(3).matrix()
    with pytest.raises(ValueError, match="no rows"):
        Mean(3).value()


def residual_model(dtype="float64"):
    model = Sequential(
        [Input((3, 4)), Dense(6, "relu"), Residual([Dense(6, "tanh"), Dense(6)]), Flatten(), Dense(5)], dtype=dtype
    )
    rng = np.random.default_rng(1)
    for view in model.network.tensors().values():
        view[...] = rng.normal(size=view.shape)
    return model


def test_moments_and_means_of_every_dense_rows_inputs(rng):
    network = residual_model().network
    data = rng.normal(size=(70, 3, 4))
    moments, means = input_moments(network, data), input_means(network, [data[:50], data[50:]])
    rows = [row for row in network.rows() if row.kind == DENSE]
    assert list(moments) == list(means) == [row.index for row in rows] and len(rows) == 4
    x = {rows[0].index: data.reshape(-1, 4)}
    x[rows[1].index] = np.maximum(x[rows[0].index] @ rows[0].kernel + rows[0].bias, 0)
    x[rows[2].index] = np.tanh(x[rows[1].index] @ rows[1].kernel + rows[1].bias)
    summed = x[rows[1].index] + x[rows[2].index] @ rows[2].kernel + rows[2].bias
    x[rows[3].index] = summed.reshape(70, -1)
    for index, inputs in x.items():
        np.testing.assert_allclose(moments[index], 2 / len(inputs) * inputs.T @ inputs, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(means[index], inputs.mean(axis=0), rtol=1e-9, atol=1e-12)


# -- scales --


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block_size", [None, 5])
@pytest.mark.parametrize("limit", [1, 7, 127])
def test_best_scales_are_as_good_as_the_best_of_a_grid(rng, limit, block_size, weighted):
    kernel = rng.standard_t(4, size=(23, 6))
    weights = rng.exponential(size=23) if weighted else None
    counts = np.ones(23) if weights is None else weights
    found = best_scales(kernel, limit, block_size, weights)
    assert found.dtype == np.float32 and found.shape == ((6,) if block_size is None else (5, 6))
    table, ratios = found.reshape(-1, 6), []
    for b, first in enumerate(range(0, 23, block_size or 23)):
        block = slice(first, first + (block_size or 23))
        part = kernel[block]
        for j in range(6):
            tried = np.abs(part[:, j]).max() / limit * np.geomspace(0.4, 2, 300)

            def error(scale, part=part, j=j, block=block):
                wrong = part[:, j] - scale * np.clip(np.rint(part[:, j] / scale), -limit, limit)
                return (counts[block] * wrong**2).sum()

            ratios.append((error(table[b, j]) + 1e-12) / (min(map(error, tried)) + 1e-12))
            assert error(table[b, j]) <= error(np.abs(part[:, j]).max() / limit) + 1e-12
    assert np.mean(ratios) < 1.03 and max(ratios) < 1.5


@pytest.mark.parametrize("limit", [7, 127])
def test_representable_kernels_are_represented(rng, limit):
    integers = rng.integers(-limit, limit + 1, (40, 30))
    integers[:, ::3] //= 2
    kernel = integers * rng.uniform(0.01, 3, 30).astype(np.float32)
    for block_size in (None, 8):
        scales = best_scales(kernel, limit, block_size)
        rounded = nearest(kernel, scales, limit, block_size)
        np.testing.assert_allclose(dequantize(rounded, scales, block_size), kernel, rtol=1e-5)
        solved = solve(kernel, moments_of(correlated(rng, 90, 40)), scales, limit, block_size=block_size)
        np.testing.assert_array_equal(solved, rounded)


def test_scales_of_zeros_and_of_next_to_nothing():
    kernel = np.zeros((4, 5))
    kernel[:, 1] = 1e-45
    kernel[2, 2] = 1e-39
    kernel[:, 3] = 3e38
    scales = best_scales(kernel, 7)
    assert scales[0] == scales[4] == 1 and (scales > 0).all() and np.isfinite(scales).all()
    rounded = nearest(kernel, scales, 7)
    np.testing.assert_array_equal(rounded[:, [0, 4]], 0)
    np.testing.assert_allclose(dequantize(rounded, scales), kernel, rtol=1e-6, atol=1e-38)
    # Inputs that do not count leave the rest to decide; where none counts, all do.
    kernel = np.array([[100.0], [0.7], [0.5]])
    assert best_scales(kernel, 7, weights=np.array([0.0, 1.0, 1.0]))[0] < 100 / 7
    assert best_scales(kernel, 7, weights=np.zeros(3)) == best_scales(kernel, 7)


# -- GPTQ --


def gptq_of_the_paper(kernel, moments, scales, limit, damping, order):
    """Algorithm 1 with the inverse and its upper Cholesky factor, one input at a time; scales (n_in, n_out)."""
    n = len(kernel)
    moments = moments + damping * np.diag(moments).mean() * np.eye(n)
    places = np.argsort(-np.diag(moments), kind="stable") if order else np.arange(n)
    inverse = np.linalg.inv(moments[np.ix_(places, places)])
    upper = np.linalg.cholesky(inverse).T
    weights, scales = kernel[places].copy(), scales[places]
    integers = np.zeros(kernel.shape, np.int64)
    for i in range(n):
        integers[i] = np.clip(np.rint(weights[i] / scales[i]), -limit, limit)
        wrong = (weights[i] - integers[i] * scales[i]) / upper[i, i]
        weights[i:] -= np.outer(upper[i, i:], wrong)
    result = np.empty_like(integers)
    result[places] = integers
    return result


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("block_size", [None, 32, 7])
@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 3), pytest.param((33, 20), marks=pytest.mark.kernels), (100, 17), (130, 50)]
)
def test_solve_is_the_papers_algorithm(rng, shape, block_size, order):
    n_in, n_out = shape
    kernel = rng.normal(size=shape)
    x = correlated(rng, 3 * n_in + 5, n_in)
    moments = moments_of(x)
    scales = best_scales(kernel, 7, block_size)
    solved = solve(kernel, moments, scales, 7, block_size=block_size, damping=0.05, order=order)
    assert solved.dtype == np.int8 and solved.shape == shape
    of_inputs = np.repeat(scales.reshape(-1, n_out), block_size or n_in, axis=0)[:n_in].astype(np.float64)
    np.testing.assert_array_equal(solved, gptq_of_the_paper(kernel, moments, of_inputs, 7, 0.05, order))


def test_solve_against_brute_force(rng):
    """Between rounding to nearest and the best of all integers, and mostly close to the best."""
    ratios = []
    for _ in range(20):
        kernel, x = rng.normal(size=(4, 1)), correlated(rng, 50, 4)
        scales = best_scales(kernel, 3)
        errors = [
            error_of(x, kernel, np.array(q, np.int8)[:, None], scales)
            for q in itertools.product(range(-3, 4), repeat=4)
        ]
        solved = error_of(x, kernel, solve(kernel, moments_of(x), scales, 3), scales)
        rounded = error_of(x, kernel, nearest(kernel, scales, 3), scales)
        assert min(errors) <= solved + 1e-9
        ratios.append((solved / min(errors), rounded / min(errors)))
    solved, rounded = np.median(ratios, axis=0)
    assert solved < 2 < 3 < rounded


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("block_size", [None, 16])
def test_less_error_than_nearest_on_correlated_inputs(rng, block_size, order):
    gains = []
    for _ in range(10):
        kernel, x = rng.normal(size=(70, 40)), correlated(rng, 500, 70)
        scales = best_scales(kernel, 7, block_size)
        solved = solve(kernel, moments_of(x), scales, 7, block_size=block_size, order=order)
        before = error_of(x, kernel, nearest(kernel, scales, 7, block_size), scales, block_size)
        gains.append(error_of(x, kernel, solved, scales, block_size) / before)
    assert max(gains) < 1 and np.mean(gains) < 0.35


def test_scales_may_be_chosen_as_blocks_are_reached(rng):
    kernel, x = rng.normal(size=(50, 9)), correlated(rng, 300, 50)
    moments = moments_of(x)
    fixed = best_scales(kernel, 7, 16)
    for order in (True, False):
        reached, scales = [], np.zeros((4, 9), np.float32)

        def choose(block, weights, reached=reached, scales=scales):
            assert weights.shape == ((16, 9) if block < 3 else (2, 9))
            if not reached:
                np.testing.assert_array_equal(weights, kernel[16 * block : 16 * block + 16])
            else:
                assert not np.allclose(weights, kernel[16 * block : 16 * block + 16])
            reached.append(block)
            scales[block] = best_scales(weights, 7)
            return scales[block]

        solved = solve(kernel, moments, choose, 7, block_size=16, order=order)
        assert sorted(reached) == [0, 1, 2, 3]
        sizes = [np.diag(moments)[16 * b : 16 * b + 16].sum() for b in range(4)]
        assert reached == (sorted(range(4), key=lambda b: -sizes[b]) if order else [0, 1, 2, 3])
        rounded = error_of(x, kernel, nearest(kernel, fixed, 7, 16), fixed, 16)
        assert error_of(x, kernel, solved, scales, 16) < 0.6 * rounded
    # One that gives what was fixed changes nothing where the order is the same.
    solved = solve(kernel, moments, lambda block, weights: fixed[block], 7, block_size=16, order=False)
    np.testing.assert_array_equal(solved, solve(kernel, moments, fixed, 7, block_size=16, order=False))


@pytest.mark.parametrize("block_size", [None, 8])
def test_dead_inputs_dead_units_and_singular_moments(rng, block_size):
    kernel, x = rng.normal(size=(30, 10)), correlated(rng, 200, 30, rank=5)
    x[:, [3, 4, 29]] = 0
    x[:, 7] = x[:, 8]
    kernel[:, 2] = 0
    scales = best_scales(kernel, 7, block_size)
    solved = solve(kernel, moments_of(x), scales, 7, block_size=block_size)
    rounded = nearest(kernel, scales, 7, block_size)
    np.testing.assert_array_equal(solved[[3, 4, 29]], rounded[[3, 4, 29]])
    np.testing.assert_array_equal(solved[:, 2], 0)
    assert error_of(x, kernel, solved, scales, block_size) < 0.2 * error_of(x, kernel, rounded, scales, block_size)
    # Inputs that never came, and a single row of them.
    for none in (np.zeros((5, 30)), np.zeros((1, 30))):
        np.testing.assert_array_equal(solve(kernel, moments_of(none), scales, 7, block_size=block_size), rounded)
    one = correlated(rng, 1, 30)
    solved = solve(kernel, moments_of(one), scales, 7, block_size=block_size)
    assert error_of(one, kernel, solved, scales, block_size) < error_of(one, kernel, rounded, scales, block_size)
    with pytest.raises(ValueError, match="not positive definite.*larger damping"):
        solve(kernel, moments_of(x), scales, 7, block_size=block_size, damping=0)


@pytest.mark.parametrize("size", [1e-150, 1e-20, 1e20, 1e150])
def test_the_size_of_moments_does_not_matter(rng, size):
    kernel, moments = rng.normal(size=(40, 5)), moments_of(correlated(rng, 100, 40))
    scales = best_scales(kernel, 7)
    np.testing.assert_array_equal(solve(kernel, moments * size, scales, 7), solve(kernel, moments, scales, 7))


def test_threads_change_no_bit(rng, monkeypatch):
    model = Sequential([Input((150,)), Dense(200, "relu"), Dense(100)])
    data = correlated(rng, 1500, 150).astype(np.float32)
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(thread_pool, "_chosen", threads)
        moments, means = input_moments(model.network, data), input_means(model.network, data)
        kernels = [row.kernel for row in model.network.rows()]
        solved = [solve(k, moments[i], best_scales(k, 7, 32), 7, block_size=32) for i, k in enumerate(kernels)]
        found.append([array.tobytes() for array in [*moments.values(), *means.values(), *solved]])
    assert found[0] == found[1]


@pytest.mark.parametrize("sizes", [pytest.param((1, 2, 47, 48, 49), marks=pytest.mark.kernels), (96, 145)])
def test_blocked_factor_is_numpys(rng, sizes):
    for n in sizes:
        ld = -(-n // 16) * 16 + 16
        x = rng.normal(size=(2 * n, n))
        matrix, negated = np.zeros((n, ld)), np.zeros((n, ld))
        matrix[:, :n] = x.T @ x
        expected = np.linalg.cholesky(matrix[:, :n])
        assert solvers.factor(matrix.reshape(-1), n, ld, negated.reshape(-1)) == -1
        np.testing.assert_allclose(np.tril(matrix[:, :n]), expected, atol=1e-10 * n)
        np.testing.assert_allclose(negated[:, :n], -expected.T, atol=1e-10 * n)
        matrix[:, :n] = -np.eye(n)
        assert solvers.factor(matrix.reshape(-1), n, ld, negated.reshape(-1)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": np.full((4, 3), np.nan)}, "kernel: its weights are not all finite"),
        ({"kernel": np.zeros(4)}, "kernel must be two-dimensional"),
        ({"kernel": np.zeros((0, 3))}, "not empty"),
        ({"moments": np.eye(3)}, r"moments must have the shape \(4, 4\), got \(3, 3\)"),
        ({"moments": np.full((4, 4), np.inf)}, "moments must be finite"),
        ({"moments": -np.eye(4)}, "diagonal at least 0"),
        ({"scales": np.ones(4)}, r"scales must be .* of shape \(3,\), got shape \(4,\)"),
        ({"scales": np.zeros(3)}, "above 0"),
        ({"scales": np.ones((1, 3)), "block_size": 3}, r"of shape \(2, 3\)"),
        ({"scales": lambda block, weights: np.ones(3)}, "block_size"),
        ({"scales": lambda block, weights: np.ones(2), "block_size": 2}, r"of shape \(3,\)"),
        ({"block_size": 0}, "block_size must be a whole number of at least 1, got 0"),
        ({"limit": 128}, "limit must be a whole number from 1 to 127, got 128"),
        ({"limit": 7.0}, "limit"),
        ({"damping": -1}, "damping"),
        ({"damping": np.nan}, "damping"),
    ],
)
def test_unfit_arguments(change, message):
    arguments = {"kernel": np.ones((4, 3)), "moments": np.eye(4), "scales": np.ones(3), "limit": 7} | change
    with pytest.raises(ValueError, match=message):
        solve(**arguments)


def test_unfit_weights_of_inputs():
    for weights in (np.ones(3), -np.ones(4), np.full(4, np.nan)):
        with pytest.raises(ValueError, match="weights must be 4 finite numbers of at least 0"):
            best_scales(np.ones((4, 3)), 7, weights=weights)


# -- equalisation --

CHAINS = {
    "chain": lambda: [Dense(7, "relu"), Dense(6), Dense(5, "leaky_relu"), Dense(4, "relu6"), Dense(3, "softmax")],
    "layers of activation": lambda: [Dense(7), ReLU(), Dropout(0.3), Dense(6), LeakyReLU(0.1), Dense(4)],
    "no bias": lambda: [Dense(7, "relu", use_bias=False), Dense(4, use_bias=False)],
    "positions": lambda: [Dense(7, "relu"), Flatten(), Dense(6, "relu"), Dense(3)],
    "residual": lambda: [Dense(6, "relu"), Residual([Dense(8, "relu"), Dense(6)]), ReLU(), Dense(4, "relu"), Dense(2)],
    "norms": lambda: [Dense(6, "relu"), BatchNormalization(), Dense(5, "relu"), LayerNormalization(), Dense(3)],
    "others": lambda: [Dense(6, "tanh"), Dense(5, "relu6"), Dense(4, "gelu"), Dense(3), Activation("sigmoid")],
}
EQUAL = {
    "chain": [(0, 1), (1, 2), (2, 3)],
    "layers of activation": [(0, 1), (1, 2)],
    "no bias": [(0, 1)],
    "positions": [(0, 1), (1, 2)],
    "residual": [(1, 2), (3, 4)],
    "norms": [],
    "others": [],
}


def drawn(layers, dtype="float64", shape=(5,)):
    model = Sequential([Input(shape), *layers], dtype=dtype)
    rng = np.random.default_rng(8)
    for view in model.network.tensors().values():
        view[...] = rng.normal(size=view.shape) if view.ndim == 2 else rng.uniform(0.1, 1, view.shape)
        if view.ndim == 2:
            view[...] *= np.exp(2 * rng.normal(size=view.shape[1]))
    return model


@pytest.mark.parametrize("name", CHAINS)
def test_equalize_keeps_the_function_and_makes_ranges_equal(rng, name):
    model = drawn(CHAINS[name](), shape=(3, 5) if name == "positions" else (5,))
    network = model.network
    before = network.params.copy()
    equalized = equalize(network)
    np.testing.assert_array_equal(network.params, before)
    x = rng.normal(size=(50, *network.input_shape))
    expected, found = model.predict(x), model.with_network(equalized).predict(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    if not EQUAL[name]:
        np.testing.assert_array_equal(equalized.params, before)
    kernels = [np.abs(row.kernel) for row in equalized.rows() if row.kind == DENSE]
    for first, second in EQUAL[name]:
        behind = kernels[second].reshape(-1, kernels[first].shape[1], kernels[second].shape[1])
        np.testing.assert_allclose(kernels[first].max(axis=0), behind.max(axis=(0, 2)), rtol=1e-4)
    assert equalized.params[equalized.params != 0].size == before[before != 0].size


def test_equalize_helps_a_scale_for_the_whole_kernel(rng):
    network = drawn([Dense(40, "relu"), Dense(40, "relu"), Dense(6)]).network
    for row in network.rows():
        row.kernel[...] *= np.exp(1.5 * rng.normal(size=row.kernel.shape[1]))

    def worst(network):
        """The largest share of columns that have next to no levels of the kernel's one scale."""
        sizes = [np.abs(row.kernel).max(axis=0) for row in network.rows()]
        return max((size < size.max() / 20).mean() for size in sizes[:2])

    assert worst(equalize(network)) < 0.7 * worst(network)


def test_equalize_leaves_dead_units_alone(rng):
    model = drawn([Dense(6, "relu"), Dense(4, "relu"), Dense(3)], "float32")
    first, second, _ = model.network.rows()
    first.kernel[:, 1] = 0
    second.kernel[2] = 0
    first.kernel[:, 3] = 1e-38
    first.bias[3] = 5.0
    second.kernel[4] = 1e-38
    equalized = equalize(model.network)
    assert np.isfinite(equalized.params).all()
    first_after, second_after, _ = equalized.rows()
    np.testing.assert_array_equal(first_after.kernel[:, 2], first.kernel[:, 2])
    assert (first_after.kernel[:, 1] == 0).all() and (second_after.kernel[2] == 0).all()
    assert first_after.bias[1] == first.bias[1]
    x = rng.normal(size=(40, 5))
    np.testing.assert_allclose(model.with_network(equalized).predict(x), model.predict(x), rtol=1e-4, atol=1e-3)


def test_equalize_keeps_masks_and_refuses_what_is_not_finite():
    from nbdense.quant import prune

    model = prune(drawn([Dense(6, "relu"), Dense(4)]), 0.5)
    equalized = equalize(model.network)
    np.testing.assert_array_equal(equalized.mask, model.network.mask)
    assert (equalized.params[equalized.mask == 0] == 0).all()
    next(model.network.rows()).bias[0] = np.inf
    with pytest.raises(ValueError, match="layer 'dense': its weights are not all finite"):
        equalize(model.network)


# -- bias correction --


def test_shift_is_the_change_of_the_mean(rng):
    kernel, x = rng.normal(size=(30, 8)), rng.exponential(size=(400, 30))
    scales = best_scales(kernel, 3)
    dequantized = dequantize(nearest(kernel, scales, 3), scales)
    rounded = np.rint(x * 2 + 0.3) / 2
    means = []
    for values in (x, rounded):
        mean = Mean(30)
        for part in np.array_split(values, 3):
            mean.update(part)
        means.append(mean.value())
        np.testing.assert_allclose(means[-1], values.mean(axis=0), rtol=1e-12)
    before = (x @ kernel).mean(axis=0)
    np.testing.assert_allclose(shift(kernel, dequantized, means[0]), (x @ dequantized).mean(axis=0) - before)
    np.testing.assert_allclose(shift(kernel, dequantized, *means), (rounded @ dequantized).mean(axis=0) - before)


def test_shift_refuses_what_does_not_fit():
    kernel = np.ones((3, 2))
    for arguments, message in [
        ((kernel, np.ones((2, 3)), np.ones(3)), "matrices of one shape"),
        ((kernel, kernel, np.ones(2)), r"mean must have the shape \(3,\), got \(2,\)"),
        ((kernel, kernel, np.ones(3), np.ones(4)), "quantized_mean"),
    ]:
        with pytest.raises(ValueError, match=message):
            shift(*arguments)
