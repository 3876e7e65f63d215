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
    serialize,
)

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
    return INITIALIZERS[name](**arguments)(shape, generator(seed, 0))


def normal_cdf(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def distance(sample, cdf):
    """Kolmogorov and Smirnov's distance, times sqrt(n): above 1.95 once in a thousand samples."""
    sample = np.sort(sample, axis=None)
    n = sample.size
    at = cdf(sample)
    return math.sqrt(n) * max((np.arange(1, n + 1) / n - at).max(), (at - np.arange(n) / n).max())


def test_every_initializer_is_tested():
    assert set(DISTRIBUTIONS) | set(CONSTANTS) == set(INITIALIZERS)
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
    bias = get(name)((20000,), generator(1, 1), fan_in=7)
    assert abs(bias.var() * 20000 / scale - 1) < 0.05


def test_torch_linear_bias_takes_the_layers_inputs():
    bias = TorchLinear()((20000,), generator(1, 1), fan_in=16)
    assert 0.249 < np.abs(bias).max() <= 0.25
    kernel = TorchLinear()((16, 2000), generator(1, 0), fan_in=99)  # a kernel knows its own
    assert 0.249 < np.abs(kernel).max() <= 0.25
    with pytest.raises(ValueError, match="TorchLinear: a bias needs fan_in"):
        TorchLinear()((5,), generator(1, 1))


# -- orthogonal --


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (1, 9), (9, 1), (32, 33), (33, 32), (65, 65), (200, 131), (64, 300), (300, 300)]
)
@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_orthogonal(shape, gain):
    w = Orthogonal(gain)(shape, generator(5, 0))
    assert w.shape == shape and w.flags.c_contiguous
    gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
    assert np.abs(gram - gain**2 * np.eye(min(shape))).max() < 1e-11


@pytest.mark.parametrize("shape", [(120, 75), (75, 120)])
def test_orthogonal_is_the_q_of_a_qr_decomposition(shape):
    tall = generator(5, 0).standard_normal((75, 120)).T
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))
    w = Orthogonal()(shape, generator(5, 0))
    assert np.abs((w if shape == (120, 75) else w.T) - q).max() < 1e-10


def test_orthogonal_of_rows_that_are_nearly_dependent():
    rows = generator(0, 0).standard_normal((150, 150))
    rows[-1] = rows[:-1].sum(0) / 12 + 1e-6 * rows[-1]
    rows[40] = rows[39] + 1e-6 * rows[40]
    for _ in range(2):
        initializers._make_orthonormal(rows)
    assert np.abs(rows @ rows.T - np.eye(150)).max() < 1e-11


def test_orthogonal_in_pieces(monkeypatch):
    """Products are cut so that their parts stay small; the cuts, at any width, leave an orthonormal matrix."""
    monkeypatch.setattr(initializers, "_PIECE", 70 * 13)
    w = Orthogonal(seed=1)((101, 70))
    assert np.abs(w.T @ w - np.eye(70)).max() < 1e-11


def test_exact_products_are_good_products():
    a, b = generator(0, 0).standard_normal((30, 900)), generator(0, 1).standard_normal((900, 40))
    exact = np.array([[math.fsum(x * y for x, y in zip(row, column, strict=True)) for column in b.T] for row in a])
    assert np.abs(initializers._product(a, b) - exact).max() < 1e-9
    order = generator(0, 2).permutation(900)  # what another order of addition would be
    assert np.array_equal(initializers._product(a[:, order], b[order]), initializers._product(a, b))
    assert not initializers._product(np.zeros((3, 900)), b).any()


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
    assert not np.array_equal(first, INITIALIZERS[name]()((13, 7), generator(3, 1)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_with_a_seed_the_key_does_not_matter(name):
    first = INITIALIZERS[name](seed=8)((13, 7))
    assert np.array_equal(first, INITIALIZERS[name](seed=np.int64(8))((13, 7), generator(3, 1)))
    assert not np.array_equal(first, INITIALIZERS[name](seed=9)((13, 7)))
    # nor is it the stream of a model's own tensor
    assert not any(np.array_equal(first, INITIALIZERS[name]()((13, 7), generator(8, n))) for n in range(4))


def test_values_that_models_have_had_stay():
    """The streams of version 0.1: a seed gives the weights that it gave."""
    w = get("glorot_uniform")((2, 2), generator(7, 2))
    assert np.allclose(
        w.ravel(), [-0.3268881282554015, -0.2452135950303611, 0.852418466169691, 0.4251240145063202], rtol=1e-15, atol=0
    )
    drawn_again = np.abs(generator(7, 2).standard_normal((3, 40))) > 2.0
    w = get("he_normal")((3, 40), generator(7, 2))
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
    assert np.array_equal(HeNormal()(shape, generator(2, 0)), naive_he_normal(shape, generator(2, 0)))


@pytest.mark.parametrize(
    ("name", "copies"), [("glorot_uniform", 1.1), ("he_normal", 1.3), ("truncated_normal", 1.3), ("orthogonal", 2.2)]
)
def test_memory(name, copies, monkeypatch):
    monkeypatch.setattr(initializers, "_PIECE", 1 << 14)
    shape = (2000, 500) if name != "orthogonal" else (8000, 70)
    initializer, random = get(name), generator(0, 0)
    tracemalloc.start()
    try:
        initializer(shape, random)
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
CHANGED |= {"scale": 2.5, "mode": "fan_avg", "distribution": "uniform"}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_round_trip(name):
    kind = INITIALIZERS[name]
    for argument in inspect.signature(kind).parameters:
        initializer = kind(**{argument: CHANGED[argument]})
        written = json.loads(json.dumps(serialize(initializer)))
        assert written["class_name"] == kind.__name__
        again = get(written)
        assert again.get_config() == initializer.get_config() != kind().get_config()
        assert np.array_equal(again((6, 5), generator(1, 1)), initializer((6, 5), generator(1, 1)))
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
    made = initializer((2, 3), generator(0, 0), fan_in=2)
    assert made.dtype == np.float64 and np.array_equal(made, [[0, 1, 2], [3, 4, 5]])
    assert serialize(initializer) == serialize(rising) == "rising"
    assert np.array_equal(get("rising", {"rising": rising})((2, 3), generator(0, 0)), made)
    with pytest.raises(ValueError, match="unknown initializer 'rising'.*custom_objects"):
        get("rising")
    with pytest.raises(ValueError, match=r"initializer 'rows' must return finite values of shape \(2, 3\), got shape"):
        get(lambda_named("rows", lambda shape, random: np.zeros(shape[0])))((2, 3), generator(0, 0))
    with pytest.raises(ValueError, match="got NaN or infinity"):
        get(lambda shape, random: np.full(shape, np.nan))((2, 3), generator(0, 0))
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


@pytest.mark.parametrize("identifier", ["glorot", "", None, 3, np.zeros((2, 2)), {}, {"class_name": ["zeros"]}, dict])
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
        (lambda: Orthogonal()((5,), generator(0, 0)), r"Orthogonal: shape must have two axes, got \(5,\)"),
        (lambda: GlorotUniform(seed=-1), "GlorotUniform: seed must be None or a whole number"),
        (lambda: GlorotUniform(seed=1.5), "seed must be None or a whole number in .*got 1.5"),
        (lambda: GlorotUniform(seed="a"), "seed must be None or a whole number"),
        (
            lambda: GlorotUniform()((2, 2)),
            "GlorotUniform draws random values: pass a numpy.random.Generator, or",
        ),
        (lambda: GlorotUniform(seed=1)((2, 2, 2)), r"shape must be \(n_in, n_out\) or \(n,\)"),
        (lambda: Zeros()((0, 3)), "Zeros: shape must be"),
        (lambda: Zeros()(()), "Zeros: shape must be"),
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
