"""Initial weights: distributions, fans, keys and seeds, memory, names and files."""

import inspect
import json
import math
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from nbdense import initializers
from nbdense.initializers import (
    INITIALIZERS,
    Constant,
    GlorotUniform,
    HeNormal,
    Initializer,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TorchLinear,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
    generator,
    get,
    orthonormal,
    serialize,
)
from nbdense.layers import Dense, Input
from nbdense.models import Sequential
from nbdense.utils import set_random_seed

N_IN, N_OUT = 400, 250
AVERAGE = (N_IN + N_OUT) / 2
# name: (variance, largest absolute value; None without a bound), from the papers
DISTRIBUTIONS = {
    "glorot_uniform": (1 / AVERAGE, math.sqrt(6 / (N_IN + N_OUT))),
    "glorot_normal": (1 / AVERAGE, 2 * math.sqrt(1 / AVERAGE) / 0.8796),
    "he_uniform": (2 / N_IN, math.sqrt(6 / N_IN)),
    "he_normal": (2 / N_IN, 2 * math.sqrt(2 / N_IN) / 0.8796),
    "lecun_uniform": (1 / N_IN, math.sqrt(3 / N_IN)),
    "lecun_normal": (1 / N_IN, 2 * math.sqrt(1 / N_IN) / 0.8796),
    "variance_scaling": (1 / N_IN, 2 * math.sqrt(1 / N_IN) / 0.8796),
    "torch_linear": (1 / (3 * N_IN), 1 / math.sqrt(N_IN)),
    "random_uniform": (0.05**2 / 3, 0.05),
    "random_normal": (0.05**2, None),
    "truncated_normal": ((0.05 * 0.8796) ** 2, 0.1),
    "orthogonal": (1 / N_IN, None),
}
CONSTANTS = {"zeros": 0.0, "ones": 1.0, "constant": 0.0}


def values(name, shape=(N_IN, N_OUT), seed=3, **arguments):
    return INITIALIZERS[name](**arguments).draw(shape, generator(seed, 0))


def normal_cdf(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def distance(sample, cdf):
    """Kolmogorov and Smirnov's distance, times sqrt(n): above 1.95 once in a thousand samples."""
    sample = np.sort(sample, axis=None)
    n = sample.size
    at = cdf(sample)
    return math.sqrt(n) * max((np.arange(1, n + 1) / n - at).max(), (at - np.arange(n) / n).max())


def test_every_initializer_is_tested():
    assert {*DISTRIBUTIONS, *CONSTANTS, "identity"} == set(INITIALIZERS)
    assert all(kind.name == name for name, kind in INITIALIZERS.items())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_moments_and_bounds(name):
    w = values(name)
    variance, bound = DISTRIBUTIONS[name]
    assert w.shape == (N_IN, N_OUT) and w.dtype == np.float64 and w.flags.c_contiguous
    # 100,000 values: a mean is off by 0.0032 deviations and a variance by 0.45% (normal), one sigma
    assert abs(w.mean()) < 0.015 * math.sqrt(variance)
    assert abs(w.var() / variance - 1) < 0.02
    assert abs(((w / w.std()) ** 3).mean()) < 0.04
    if bound is not None:
        assert 0.99 * bound < np.abs(w).max() <= bound * 1.0001
    assert len(np.unique(w)) == w.size


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name != "orthogonal"])
def test_distribution(name):
    _, bound = DISTRIBUTIONS[name]
    w = values(name)
    if "uniform" in name or name == "torch_linear":
        assert distance(w, lambda x: (x + bound) / (2 * bound)) < 1.95
    elif name == "random_normal":
        assert distance(w / 0.05, normal_cdf) < 1.95
    else:
        assert distance(2 * w / bound, lambda x: (normal_cdf(x) - normal_cdf(-2)) / (1 - 2 * normal_cdf(-2))) < 1.95


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(name):
    for shape in [(2, 3), (4,)]:
        assert np.array_equal(INITIALIZERS[name]()(shape), np.full(shape, CONSTANTS[name]))
    assert np.array_equal(Constant(-1.5)((2, 2)), np.full((2, 2), -1.5))


def test_arguments_are_meant():
    w = values("random_uniform", minval=1.0, maxval=3.0)
    assert w.min() >= 1 and w.max() < 3 and abs(w.mean() - 2) < 0.01
    w = values("random_normal", mean=5.0, stddev=2.0)
    assert abs(w.mean() - 5) < 0.03 and abs(w.std() - 2) < 0.02
    w = values("truncated_normal", mean=5.0, stddev=2.0)
    assert abs(w.mean() - 5) < 0.03 and 1 <= w.min() < 1.01 and 8.99 < w.max() <= 9
    assert np.array_equal(values("random_normal", stddev=0.0, mean=1.0), np.ones((N_IN, N_OUT)))


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", N_IN), ("fan_out", N_OUT), ("fan_avg", AVERAGE)])
@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal"])
def test_variance_scaling(mode, fan, distribution):
    w = values("variance_scaling", scale=3.0, mode=mode, distribution=distribution)
    assert abs(w.var() * fan / 3.0 - 1) < 0.02
    peak = np.abs(w).max() / math.sqrt(3.0 / fan)
    low, high = {"uniform": (1.72, 1.733), "truncated_normal": (2.26, 2.274), "untruncated_normal": (3.5, 6)}[
        distribution
    ]
    assert low < peak < high


def test_normal_is_keras_name_of_the_truncated_normal():
    assert VarianceScaling(distribution="Normal").distribution == "truncated_normal"


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "lecun_uniform"])
def test_a_bias_has_both_fans_equal(name):
    """As in Keras: what is known of a one-axis tensor is its length, whatever layer it belongs to."""
    scale = {"glorot_uniform": 1, "he_normal": 2, "lecun_uniform": 1}[name]
    bias = get(name).draw((20000,), generator(1, 1), fan_in=7)
    assert abs(bias.var() * 20000 / scale - 1) < 0.05


def test_torch_linear_bias_takes_the_layers_inputs():
    bias = TorchLinear().draw((20000,), generator(1, 1), fan_in=16)
    assert 0.249 < np.abs(bias).max() <= 0.25
    kernel = TorchLinear().draw((16, 2000), generator(1, 0), fan_in=99)  # a kernel knows its own
    assert 0.249 < np.abs(kernel).max() <= 0.25
    with pytest.raises(ValueError, match="TorchLinear: a bias needs fan_in"):
        TorchLinear().draw((5,), generator(1, 1))


# -- orthogonal --


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (1, 9), (9, 1), (32, 33), (33, 32), (65, 65), (200, 131), (64, 300), (300, 300)]
)
@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_orthogonal(shape, gain):
    w = Orthogonal(gain).draw(shape, generator(5, 0))
    assert w.shape == shape and w.flags.c_contiguous
    gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
    assert np.abs(gram - gain**2 * np.eye(min(shape))).max() < 1e-11


@pytest.mark.parametrize("shape", [(120, 75), (75, 120)])
def test_orthogonal_is_the_q_of_a_qr_decomposition(shape):
    tall = generator(5, 0).standard_normal((75, 120)).T
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))
    w = Orthogonal().draw(shape, generator(5, 0))
    assert np.abs((w if shape == (120, 75) else w.T) - q).max() < 1e-10


def test_orthogonal_of_rows_that_are_nearly_dependent():
    rows = generator(0, 0).standard_normal((150, 150))
    rows[-1] = rows[:-1].sum(0) / 12 + 1e-6 * rows[-1]
    rows[40] = rows[39] + 1e-6 * rows[40]
    for _ in range(2):
        orthonormal._make_orthonormal(rows)
    assert np.abs(rows @ rows.T - np.eye(150)).max() < 1e-11


def test_orthogonal_in_pieces(monkeypatch):
    """Products are cut so that their parts stay small; the cuts, at any width, leave an orthonormal matrix."""
    monkeypatch.setattr(orthonormal, "_PIECE", 70 * 13)
    w = Orthogonal(seed=1).draw((101, 70))
    assert np.abs(w.T @ w - np.eye(70)).max() < 1e-11


def test_exact_products_are_good_products():
    a, b = generator(0, 0).standard_normal((30, 900)), generator(0, 1).standard_normal((900, 40))
    exact = np.array([[math.fsum(x * y for x, y in zip(row, column, strict=True)) for column in b.T] for row in a])
    assert np.abs(orthonormal._product(a, b) - exact).max() < 1e-9
    order = generator(0, 2).permutation(900)  # what another order of addition would be
    assert np.array_equal(orthonormal._product(a[:, order], b[order]), orthonormal._product(a, b))
    assert not orthonormal._product(np.zeros((3, 900)), b).any()


HASH = """
import hashlib
from nbdense.initializers import Orthogonal
for shape in [(784, 256), (300, 300)]:
    print(hashlib.sha256(Orthogonal(seed=1)(shape).tobytes()).hexdigest())
"""


def test_orthogonal_is_the_same_with_any_number_of_blas_threads():
    said = {
        subprocess.run(
            [sys.executable, "-c", HASH],
            env={**os.environ, "OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for n in ("1", "2")
    }
    assert len(said) == 1


# -- keys and seeds --


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_values_are_a_function_of_the_key(name):
    first = values(name, (13, 7))
    assert np.array_equal(first, values(name, (13, 7)))
    assert not np.array_equal(first, values(name, (13, 7), seed=4))
    assert not np.array_equal(first, INITIALIZERS[name]().draw((13, 7), generator(3, 1)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_with_a_seed_the_key_does_not_matter(name):
    first = INITIALIZERS[name](seed=8).draw((13, 7))
    assert np.array_equal(first, INITIALIZERS[name](seed=np.int64(8)).draw((13, 7), generator(3, 1)))
    assert not np.array_equal(first, INITIALIZERS[name](seed=9).draw((13, 7)))
    # nor is it the stream of a model's own tensor
    assert not any(np.array_equal(first, INITIALIZERS[name]().draw((13, 7), generator(8, n))) for n in range(4))


def test_values_that_models_have_had_stay():
    """The streams of version 0.1: a seed gives the weights that it gave."""
    w = get("glorot_uniform").draw((2, 2), generator(7, 2))
    assert np.allclose(
        w.ravel(), [-0.3268881282554015, -0.2452135950303611, 0.852418466169691, 0.4251240145063202], rtol=1e-15, atol=0
    )
    drawn_again = np.abs(generator(7, 2).standard_normal((3, 40))) > 2.0
    w = get("he_normal").draw((3, 40), generator(7, 2))
    assert np.allclose(w[:, 0], [-1.2183928511061783, -0.8146136025656044, -0.6637854032037313], rtol=1e-15, atol=0)
    assert np.allclose(w[drawn_again], [-1.36375208, -0.59247335, -0.62761234, 0.28295927, 1.13521426], rtol=1e-7)


def naive_he_normal(shape, random):
    """All that are out of bounds are drawn again, in order, until none is."""
    values = random.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = random.standard_normal(int(outside.sum()))
    return values * (math.sqrt(2.0 / shape[0]) / 0.87962566103423978)


@pytest.mark.parametrize("shape", [(1, 1), (5,), (31, 37), (700, 211)])
def test_drawing_again_in_blocks(shape):
    assert np.array_equal(HeNormal().draw(shape, generator(2, 0)), naive_he_normal(shape, generator(2, 0)))


@pytest.mark.parametrize(
    ("name", "copies"), [("glorot_uniform", 1.1), ("he_normal", 1.3), ("truncated_normal", 1.3), ("orthogonal", 2.2)]
)
def test_memory(name, copies, monkeypatch):
    monkeypatch.setattr(orthonormal, "_PIECE", 1 << 14)
    shape = (2000, 500) if name != "orthogonal" else (8000, 70)
    initializer, random = get(name), generator(0, 0)
    tracemalloc.start()
    try:
        initializer.draw(shape, random)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < copies * 8 * math.prod(shape) + 2**20


# -- names and files --


@pytest.mark.parametrize("name", INITIALIZERS)
def test_by_name(name):
    kind = INITIALIZERS[name]
    for identifier in (name, kind.__name__, kind, kind(), {"class_name": kind.__name__}, {"name": name, "config": {}}):
        initializer = get(identifier)
        assert type(initializer) is kind and initializer.get_config() == kind().get_config()
    assert serialize(name) == name and serialize(kind()) == name


def test_kerass_other_names():
    names = {"normal": RandomNormal, "uniform": RandomUniform, "zero": Zeros, "one": INITIALIZERS["ones"]}
    assert all(type(get(name)) is kind for name, kind in names.items())


CHANGED = {"value": 0.25, "seed": 5, "gain": 2.0, "mean": 0.5, "stddev": 0.75, "minval": -1.0, "maxval": 2.0}
CHANGED |= {"scale": 2.5, "mode": "fan_avg", "distribution": "uniform", "input_axes": [0], "output_axes": [1]}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_round_trip(name):
    kind = INITIALIZERS[name]
    for argument in inspect.signature(kind).parameters:
        initializer = kind(**{argument: CHANGED[argument]})
        written = json.loads(json.dumps(serialize(initializer)))
        assert written["class_name"] == kind.__name__
        again = get(written)
        assert again.get_config() == initializer.get_config() != kind().get_config()
        assert np.array_equal(again.draw((6, 5), generator(1, 1)), initializer.draw((6, 5), generator(1, 1)))
    keras_form = {"module": "keras.initializers", "class_name": kind.__name__, "config": {}, "registered_name": None}
    assert type(get(keras_form)) is kind


def test_an_object_is_returned_as_it_is():
    initializer = HeNormal(seed=1)
    assert get(initializer) is initializer
    assert repr(initializer) == "HeNormal(seed=1)"


def test_a_users_function():
    def rising(shape, random):
        return np.arange(math.prod(shape)).reshape(shape) + random.integers(1)

    initializer = get(rising)
    made = initializer.draw((2, 3), generator(0, 0), fan_in=2)
    assert made.dtype == np.float64 and np.array_equal(made, [[0, 1, 2], [3, 4, 5]])
    assert serialize(initializer) == serialize(rising) == "rising"
    assert np.array_equal(get("rising", {"rising": rising}).draw((2, 3), generator(0, 0)), made)
    with pytest.raises(ValueError, match="unknown initializer 'rising'.*custom_objects"):
        get("rising")
    with pytest.raises(ValueError, match=r"initializer 'rows': asked for finite values of shape \(2, 3\), got shape"):
        get(lambda_named("rows", lambda shape, random: np.zeros(shape[0]))).draw((2, 3), generator(0, 0))
    with pytest.raises(ValueError, match="got NaN or infinity"):
        get(lambda shape, random: np.full(shape, np.nan)).draw((2, 3), generator(0, 0))
    assert serialize(lambda shape, random: np.zeros(shape)) == "lambda"


def lambda_named(name, function):
    function.__name__ = name
    return function


class Diagonal(Initializer):
    def __init__(self, value=1.0):
        self.value = value

    def __call__(self, shape, random=None, fan_in=None):
        return self.value * np.eye(*shape)


def test_a_users_class():
    written = serialize(Diagonal(3.0))
    assert written == {"class_name": "Diagonal", "config": {"value": 3.0}}
    again = get(json.loads(json.dumps(written)), {"Diagonal": Diagonal})
    assert np.array_equal(again((2, 3)), 3 * np.eye(2, 3))
    assert np.array_equal(get(Diagonal)((1, 2)), [[1, 0]])
    with pytest.raises(ValueError, match="unknown initializer"):
        get(written)
    with pytest.raises(NotImplementedError, match="must define __call__"):
        Initializer()((2, 2))


@pytest.mark.parametrize("identifier", ["glorot", "", 3, {}, {"class_name": ["zeros"]}, dict])
def test_unknown(identifier):
    with pytest.raises(ValueError, match="(?s)unknown initializer .*there are: constant, .*he_normal, .*zeros"):
        get(identifier)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VarianceScaling(scale=0.0), "scale must be above 0"),
        (lambda: VarianceScaling(scale=-1.0), "scale must be a finite number of at least 0, got -1.0"),
        (lambda: VarianceScaling(mode="fan"), "mode must be one of fan_in, fan_out, fan_avg, got 'fan'"),
        (lambda: VarianceScaling(distribution="cauchy"), "distribution must be one of .*got 'cauchy'"),
        (lambda: VarianceScaling(distribution=None), "distribution must be one of .*got None"),
        (lambda: Constant(math.nan), "Constant: value must be a finite number, got nan"),
        (lambda: Constant("1"), "Constant: value must be a finite number, got '1'"),
        (lambda: RandomNormal(stddev=-0.1), "RandomNormal: stddev must be a finite number of at least 0"),
        (lambda: TruncatedNormal(mean=math.inf), "TruncatedNormal: mean must be a finite number, got inf"),
        (lambda: RandomUniform(1.0, -1.0), "minval must not be above maxval"),
        (lambda: Orthogonal(gain=math.inf), "Orthogonal: gain must be a finite number"),
        (lambda: Orthogonal().draw((5,), generator(0, 0)), r"Orthogonal: shape must have two axes, got \(5,\)"),
        (lambda: GlorotUniform(seed=-1), "GlorotUniform: seed must be None or a whole number"),
        (lambda: GlorotUniform(seed=1.5), "seed must be None or a whole number in .*got 1.5"),
        (lambda: GlorotUniform(seed="a"), "seed must be None or a whole number"),
        (lambda: GlorotUniform().draw((2, 2)), "GlorotUniform: pass a numpy.random.Generator, or set seed"),
        (lambda: Constant([1.0, math.nan]), "Constant: value must be finite numbers, got NaN"),
        (lambda: get(np.zeros(3))((2, 2)), r"Constant: Expected `shape` to be \(3,\), as the value has, got \(2, 2\)"),
        (lambda: INITIALIZERS["identity"]()((2,)), r"Identity: shape must have two axes, got \(2,\)"),
        (lambda: Zeros()((0, 3)), "Zeros: shape must be"),
        (lambda: Zeros()(5), "Zeros: shape must be"),
        (lambda: Zeros()((2.0, 3.0)), "Zeros: shape must be"),
        (lambda: get({"class_name": "HeNormal", "config": {"sed": 1}}), "'HeNormal' doesn't take these arguments"),
        (lambda: get({"class_name": "HeNormal", "config": [1]}), "'HeNormal' doesn't take these arguments"),
        (lambda: get({"class_name": "Constant", "config": {"value": None}}), "value must be a finite number"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- called as Keras's --


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_call_gives_an_array_of_its_dtype(name):
    kind = INITIALIZERS[name]
    assert kind()((5, 4)).dtype == np.float32 and kind()(shape=(5, 4), dtype="float64").dtype == np.float64
    if name in DISTRIBUTIONS:
        drawn = kind()
        first = drawn((5, 4), "float64")
        np.testing.assert_array_equal(drawn((5, 4), "float64"), first)  # a seed of its own
        assert not np.array_equal(drawn.clone()((5, 4), "float64"), first)
        seeded = kind(seed=3)
        np.testing.assert_array_equal(seeded.clone()((5, 4), "float64"), seeded.draw((5, 4)))


def test_set_random_seed_decides_unseeded_calls():
    made = []
    for _ in range(2):
        set_random_seed(5)
        made.append(GlorotUniform()((3, 3)))
    np.testing.assert_array_equal(*made)


def test_moments_of_calls():
    assert HeNormal()((N_IN, N_OUT)).var() == pytest.approx(2 / N_IN, rel=0.02)
    window = VarianceScaling(2.0, seed=1)((3, 5, 40, 60))  # of 3 x 5 columns, as a convolution's
    assert window.var() == pytest.approx(2 / 600, rel=0.03)
    axes = VarianceScaling(2.0, seed=1, input_axes=[0], output_axes=[1, 2])((300, 8, 16))
    assert axes.var() == pytest.approx(2 / 300, rel=0.03)
    out = VarianceScaling(2.0, mode="fan_out", seed=1, input_axes=[0], output_axes=[1, 2])((300, 8, 16))
    assert out.var() == pytest.approx(2 / 128, rel=0.03)
    rows = Orthogonal(2.0)((3, 4, 5), "float64").reshape(12, 5)
    np.testing.assert_allclose(rows.T @ rows, 4 * np.eye(5), atol=1e-12)


def test_constants_of_arrays():
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(get(values)((2, 3)), values)
    np.testing.assert_array_equal(Constant([1.0, 2.0, 3.0])((2, 3)), [[1, 2, 3]] * 2)
    again = get(json.loads(json.dumps(serialize(Constant(values)))))
    np.testing.assert_array_equal(again((2, 3), "float64"), values)
    np.testing.assert_array_equal(initializers.Identity(2.0)((2, 3)), [[2, 0, 0], [0, 2, 0]])
    assert type(get("IdentityInitializer")) is initializers.identity is initializers.Identity


def keras_function(shape, dtype=None):
    return np.arange(math.prod(shape), dtype=dtype).reshape(shape)


class KerasClass(Initializer):
    def __call__(self, shape, dtype=None, **options):
        return np.full(shape, 0.25, dtype)


class WithTheModelsSeed(Initializer):
    def __call__(self, shape, dtype=None, random=None):
        return random.normal(size=shape)


def test_layers_take_callables_of_keras():
    model = Sequential([Input((2,)), Dense(3, kernel_initializer=keras_function, bias_initializer=KerasClass())])
    np.testing.assert_array_equal(model.get_weights()[0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(model.get_weights()[1], [0.25] * 3)
    drawn = []
    for seed in (1, 1, 2):
        model = Sequential([Input((2,)), Dense(3, kernel_initializer=WithTheModelsSeed())])
        model.seed = seed
        drawn.append(model.get_weights()[0])
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_none_is_a_layers_default():
    assert get(None) is None
    assert type(Dense(2, kernel_initializer=None).kernel_initializer) is GlorotUniform
