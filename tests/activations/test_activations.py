"""Activations, one by one: values and derivatives, ends, names, parameters."""

import ast
import math

import numpy as np
import pytest

from nbdense import activations, layers
from nbdense._compile.policy import JIT
from nbdense.activations import ACTIVATIONS, ALIASES
from nbdense.engine.elementwise.activation_loops import activate_row, differentiate
from nbdense.network.builder import NetworkBuilder
from nbdense.training import phases
from tests.reference import naive
from tests.support.builders import make_model, workspace_and_data
from tests.support.compiled import compiled
from tests.support.source_tree import ROOT

GOLDEN = dict(np.load(ROOT / "tests" / "golden" / "activations.npz"))
TOLERANCES = {np.float32: 1e-5, np.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES)
SCALAR = [name for name, row in ACTIVATIONS.items() if not row.rowwise]
WITH_PARAMETERS = [key for key in GOLDEN if " " in key and not key.endswith("/derivative")]
FINITE = ("sigmoid", "tanh", "hard_sigmoid", "relu6", "softsign", "hard_tanh", "sparse_sigmoid", "log_sigmoid")
AT_MINUS_INFINITY = {"elu": -1.0, "celu": -1.0, "tanh": -1.0, "softsign": -1.0, "hard_tanh": -1.0}
AT_MINUS_INFINITY |= dict.fromkeys(
    ["linear", "leaky_relu", "log_sigmoid", "hard_shrink", "soft_shrink", "tanh_shrink"], -np.inf
)
AT_MINUS_INFINITY["selu"] = -naive.SELU_SCALE * naive.SELU_ALPHA
AT_INFINITY = {"relu6": 6.0, "log_sigmoid": 0.0}
SLOPES = {"linear": (1.0, 1.0), "leaky_relu": (0.2, 1.0), "selu": (0.0, naive.SELU_SCALE)}  # at -inf and inf
SLOPES |= {"log_sigmoid": (1.0, 0.0), "exponential": (0.0, np.inf)}
SLOPES |= dict.fromkeys(["hard_shrink", "soft_shrink", "tanh_shrink"], (1.0, 1.0))


@compiled
def run(table, work, ld):
    """From z at 0: the output at ld, and the deltas at 2 ld taken backward."""
    activate_row(table[0], work, ld, 1)
    differentiate(table[0], work, 0, ld, 2 * ld, 1)


def evaluate(activation, z, deltas=None):
    """Output and derivative of one row of numbers, by the engine's kernels."""
    builder = NetworkBuilder(z.size, z.dtype)
    builder.activation("a", activation)
    table = builder.finish().layers
    ld = int(table["ld_out"][0])
    work = np.zeros((3, ld), z.dtype)
    work[:2, : z.size] = z
    work[2, : z.size] = 1.0 if deltas is None else deltas
    run(table, work.reshape(-1), ld)
    assert not work[1:, z.size :].any()
    return work[1, : z.size], work[2, : z.size]


def assert_near(got, expected, tolerance, name):
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(got.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
        error[got == expected.astype(got.dtype)] = 0.0  # infinities among them
    assert error.max() <= tolerance, f"{name}: off by {error.max():.3g} at place {error.argmax()}"


@pytest.mark.kernels
@DTYPES
@pytest.mark.parametrize("name", SCALAR)
def test_values_are_torchs(name, dtype):
    """tests/golden/make_activations.py wrote them: linear to large numbers."""
    value, derivative = evaluate(ACTIVATIONS[name], GOLDEN["z"].astype(dtype))
    assert_near(value, GOLDEN[name], TOLERANCES[dtype], name)
    assert_near(derivative, GOLDEN[f"{name}/derivative"], TOLERANCES[dtype], f"{name}'s derivative")


@pytest.mark.kernels
@DTYPES
@pytest.mark.parametrize("key", WITH_PARAMETERS)
def test_values_with_parameters_are_torchs(key, dtype):
    name, alpha = key.split(" ", 1)
    activation = ACTIVATIONS[name].with_alpha(ast.literal_eval(alpha))
    z = GOLDEN["z"].astype(dtype)
    value, derivative = evaluate(activation, z)
    assert_near(value, GOLDEN[key], TOLERANCES[dtype], key)
    assert_near(derivative, GOLDEN[f"{key}/derivative"], TOLERANCES[dtype], f"{key}'s derivative")
    np.testing.assert_array_equal(activation(z), value)  # as a function of an array


@pytest.mark.kernels
@DTYPES
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rowwise_ones_are_torchs(name, dtype):
    for i, z in enumerate(GOLDEN["softmax/z"].astype(dtype)):
        value, derivative = evaluate(ACTIVATIONS[name], z, GOLDEN["softmax/weights"][i])
        assert_near(value, GOLDEN[name][i], TOLERANCES[dtype], name)
        assert_near(derivative, GOLDEN[f"{name}/derivative"][i], TOLERANCES[dtype], f"{name}'s derivative")


def test_golden_values_are_the_naive_ones():
    """Two witnesses that share nothing; and all that torch has is among them."""
    z = GOLDEN["z"]
    for name in SCALAR:
        with np.errstate(over="ignore", invalid="ignore"):
            value, derivative = (f(z) for f in naive.ACTIVATIONS[name])
        known = np.isfinite(derivative)  # naive.py multiplies 0 by infinity far out
        assert known.sum() > 50
        assert_near(value, GOLDEN[name], 1e-14, name)
        assert_near(derivative[known], GOLDEN[f"{name}/derivative"][known], 1e-14, name)


@DTYPES
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "mish", "softplus", "elu", "selu", "sigmoid"])
def test_negative_tails_keep_their_digits(name, dtype):
    """Relative accuracy where 1 + erf, 1 + tanh and log(1 + e) would have nothing left."""
    z = np.linspace(-10.0, -1.0, 181).astype(dtype)
    wide = z.astype(np.longdouble)
    e = np.exp(wide)
    u = 2 * np.sqrt(2 / np.longdouble(np.pi)) * (wide + np.longdouble(0.044715) * wide**3)
    exact = {
        "gelu_tanh": wide * np.exp(u) / (1 + np.exp(u)),
        "silu": wide * e / (1 + e),
        "mish": wide * (e * e + 2 * e) / (e * e + 2 * e + 2),
        "softplus": np.log1p(e),
        "elu": np.expm1(wide),
        "selu": naive.SELU_SCALE * naive.SELU_ALPHA * np.expm1(wide),
        "sigmoid": e / (1 + e),
    }
    if name == "gelu":
        exact["gelu"] = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in z.astype(float)])
    value, _ = evaluate(ACTIVATIONS[name], z)
    # What the argument of exp loses; and that of erfc in the reference.
    ulps = 4.0 + (z.astype(float) ** 2 if name == "gelu" else 0) + (np.abs(u) if name == "gelu_tanh" else 0)
    error = np.abs(value / exact[name] - 1) / np.finfo(dtype).eps
    assert (error <= ulps).all(), f"{name}: {(error - ulps).max()} too many"


@pytest.mark.kernels
@DTYPES
@pytest.mark.parametrize("name", SCALAR)
def test_ends_are_limits(name, dtype):
    """No 0 times infinity; NaN stays NaN."""
    most = np.finfo(dtype).max
    value, derivative = evaluate(ACTIVATIONS[name], np.array([-np.inf, np.inf, np.nan, -most, most], dtype))
    low, high = AT_MINUS_INFINITY.get(name, 0.0), AT_INFINITY.get(name, 1.0) if name in FINITE else np.inf
    np.testing.assert_allclose(value[:2], [low, high], rtol=1e-6)
    assert np.isnan(value[2])
    slopes = SLOPES.get(name, (0.0, 0.0 if name in FINITE else 1.0))
    np.testing.assert_allclose(derivative[:2], slopes, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(derivative[3:], slopes, rtol=1e-6, atol=1e-6)
    assert not np.isnan(value[3:]).any()


@pytest.mark.kernels
@pytest.mark.double
@pytest.mark.parametrize(
    ("name", "alpha"), [("relu6", 2.5), ("leaky_relu", 0.01), ("leaky_relu", 0.0), ("elu", 0.3), ("elu", 0.0)]
)
@pytest.mark.parametrize("inside", [True, False])
def test_parameters(name, alpha, inside):
    """In a Dense layer and as a layer of its own: outputs and the gradient."""
    made = ACTIVATIONS[name].with_alpha(alpha)
    functions = {
        "relu6": (lambda z: np.clip(z, 0, alpha), lambda z: ((z > 0) & (z < alpha)) * 1.0),
        "leaky_relu": (lambda z: naive.leaky_relu(z, alpha), lambda z: naive.leaky_relu_derivative(z, alpha)),
        "elu": (lambda z: naive.elu(z, alpha), lambda z: naive.elu_derivative(z, alpha)),
    }
    rng = np.random.default_rng(3)
    model = make_model([3, 5], [made if inside else "linear"])
    if not inside:
        rows = [layers.Input((3,)), *model.layers, layers.Activation(made)]
        weights = model.get_weights()
        model = type(model)(rows, dtype="float64")
        model.compile("sgd", "mse")
        model.set_weights(weights)
    kernel, bias = model.get_weights()
    x, y = 3 * rng.normal(size=(7, 3)), rng.normal(size=(7, 5))
    forward, derivative = functions[name]
    z = x @ kernel + bias
    np.testing.assert_allclose(model.predict(x), forward(z), rtol=1e-13, atol=1e-13)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(np.mean((forward(z) - y) ** 2))
    workspace, data = workspace_and_data(model, x, y)
    workspace.run(phases.training(model.network.layers, updates=False), data)
    expected = x.T @ (2 * (forward(z) - y) * derivative(z)) / y.size
    got = next(iter(model.network.tensors(model.state[0]).values()))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.double)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_through_networks(name, dtype):
    """Three layers of it against naive.py."""
    rng = np.random.default_rng(6)
    sizes = [3, 4, 3, 2] if not JIT else [5, 17, 9, 3]
    model = make_model(sizes, [name] * 3, dtype=np.dtype(dtype).name)
    x, y = rng.normal(size=(6, sizes[0])).astype(dtype), rng.normal(size=(6, sizes[-1])).astype(dtype)
    if name == "exponential":
        x *= dtype(0.1)  # an exponential of exponentials magnifies the rounding of its inputs
    workspace, data = workspace_and_data(model, x, y)
    _, totals = workspace.run(phases.training(model.network.layers, updates=False), data)
    description = [
        (row.kernel.astype(float), row.bias.astype(float), row.activation.name) for row in model.network.rows()
    ]
    loss, pairs, _ = naive.mlp_loss_and_gradients(x.astype(float), y.astype(float), description, "mean_squared_error")
    tolerance = TOLERANCES[dtype]
    assert totals[0, 0] / len(x) == pytest.approx(loss, rel=tolerance)
    flat = [part for pair in pairs for part in pair]
    for got, expected in zip(model.network.tensors(model.state[0]).values(), flat, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))


def test_names_and_descriptions():
    for name, row in ACTIVATIONS.items():
        assert activations.get(name) is row
        assert activations.serialize(row) == name
        assert activations.get(row) is row
        assert activations.get({"name": name}) is row
    for alias, name in ALIASES.items():
        assert activations.get(alias) is ACTIVATIONS[name]
    assert activations.get(None).name == "linear"
    changed = ACTIVATIONS["elu"].with_alpha(0.5)
    assert activations.serialize(changed) == {"name": "elu", "alpha": 0.5}
    assert activations.get({"name": "elu", "alpha": 0.5}) == changed
    assert ACTIVATIONS["elu"].with_alpha(1) == ACTIVATIONS["elu"]
    assert ACTIVATIONS["relu6"].with_alpha(np.float32(2)).upper == 2.0


def test_activation_layers_stand_for_their_activation():
    for layer in (layers.ReLU(max_value=3.0), layers.LeakyReLU(0.05), layers.Softmax(), layers.ReLU()):
        assert layers.Dense(2, activation=layer).activation == layer.activation
    with pytest.raises(ValueError, match="unknown activation"):
        activations.get(layers.Dense(3, "relu"))


@pytest.mark.parametrize(
    ("name", "alpha", "message"),
    [
        ("elu", -0.5, "'elu': alpha must be a finite number at least 0, got -0.5"),
        ("leaky_relu", float("nan"), "'leaky_relu': negative_slope .*nan"),
        ("leaky_relu", "steep", "'leaky_relu': negative_slope .*steep"),
        ("relu6", 0.0, "'relu6': alpha must be a finite number above 0"),
        ("relu6", float("inf"), "above 0, got inf"),
        ("elu", True, "got True"),
        ("tanh", 0.5, "'tanh' has no parameter"),
        ("celu", 0, "'celu': alpha must be a finite number above 0, got 0"),
        ("hard_shrink", -1.0, "'hard_shrink': threshold must be a finite number at least 0, got -1.0"),
        ("hard_tanh", 1.0, "'hard_tanh' has the parameters min_value, max_value, got 1.0"),
        ("hard_tanh", (2.0, 1.0), "a clamp to .2, 1. leaves no two numbers"),
        ("hard_tanh", (float("nan"), 1.0), "min_value must be a finite number or None, got nan"),
        ("threshold", (1.0, None), "default_value must be a finite number, got None"),
    ],
)
def test_parameters_that_cannot_be(name, alpha, message):
    with pytest.raises(ValueError, match=message):
        ACTIVATIONS[name].with_alpha(alpha)
    with pytest.raises(ValueError, match=message):
        activations.get({"name": name, "alpha": alpha})


@pytest.mark.parametrize("identifier", ["rulu", 3, {"name": "relu", "slope": 1}, {}, ["relu"], {"name": ["relu"]}])
def test_unknown_identifiers(identifier):
    with pytest.raises(ValueError, match="activation"):
        activations.get(identifier)


def test_parameters_survive_a_file(tmp_path):
    from nbdense.models import load_model

    changed = [ACTIVATIONS["elu"].with_alpha(0.4), ACTIVATIONS["relu6"].with_alpha(1.5)]
    model = make_model([3, 4, 4, 2], [*changed, "swish"])
    x = np.random.default_rng(2).normal(size=(9, 3))
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(x), model.predict(x))


@pytest.mark.parametrize("made", [ACTIVATIONS["relu6"].with_alpha(9.0), ACTIVATIONS["relu6"].with_alpha(0.5)])
def test_quantized_clamps_follow_the_parameter(made):
    from nbdense.quant import quantize

    model = make_model([3, 8], [made])
    model.set_weights([6 * w for w in model.get_weights()])
    x = 3 * np.random.default_rng(5).normal(size=(200, 3))
    assert model.predict(x).max() == made.alpha
    assert quantize(model, x).predict(x).max() == pytest.approx(made.alpha, rel=1e-3)
