"""Models of files by NumPy alone, against the engine: floats closely, integers bit for bit."""

import dataclasses
import math

import numpy as np
import pytest

import nbdense as nb
from nbdense import activations, runtime
from nbdense.files import FileFormatError, write_tensors
from nbdense.layers.registry import LAYERS
from nbdense.quant import QuantizedModel, QuantizedNetwork, quantize, quantize_aware
from nbdense.quant.layers.activations import exponentials
from nbdense.quant.model.network import LAYERS as QUANTIZED_LAYERS
from nbdense.quant.model.network import (
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedFlatten,
    QuantizedSoftmax,
)
from nbdense.quant.sparse.forms import FORMS
from nbdense.runtime import quantized, sequential, sparse
from nbdense.runtime.model import READERS
from nbdense.runtime.rounding import ROUNDINGS
from tests.support.drawn_networks import FUNCTIONS, Drawn, draw_network
from tests.support.stacks import MORE_STACKS, STACKS, STAIRS, data, made, randomise

F32 = np.float32


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def loaded(model, folder):
    model.save(folder / "model.nbd")
    return runtime.load_model(folder / "model.nbd")


def assert_close(computed, expected):
    """Within what another order of summation may do."""
    assert (computed.shape, computed.dtype) == (expected.shape, expected.dtype)
    unit = np.finfo(expected.dtype).eps
    np.testing.assert_allclose(
        computed, expected, rtol=50 * unit, atol=50 * unit * max(np.nanmax(np.abs(expected)), 0.1)
    )


# -- float models --


def test_every_kind_of_layer_has_a_reader():
    assert {kind: name for kind, (name, _) in sequential.LAYERS.items()} == {
        kind: layer.__name__ for kind, layer in LAYERS.items() if kind != "input"
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*STACKS, *MORE_STACKS, *STAIRS])
def test_stacks(name, dtype, tmp_path):
    layers, shape = (STACKS | MORE_STACKS | STAIRS)[name]
    model = randomise(made(layers(), shape, dtype))
    x = data(model, 50)
    assert_close(loaded(model, tmp_path).predict(x), model.predict(x))


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activations(name, tmp_path):
    layers = [nb.Dense(7, name), nb.Activation(name), nb.Dense(3, name)]
    model = randomise(made(layers, (5,), "float64"))
    model.network.params *= 0.2  # exponentials of exponentials stay numbers
    x = data(model, 50)
    assert_close(loaded(model, tmp_path).predict(x), model.predict(x))


def test_options_of_activations(tmp_path):
    layers = [nb.Dense(9, activations.hard_tanh.with_alpha((-0.5, None))), nb.ReLU(3.0, 0.1, 0.2), nb.ReLU(0.0)]
    layers += [nb.Dense(9), nb.LeakyReLU(0.4), nb.ELU(0.7), nb.ReLU(), nb.ReLU(2.0), nb.Softmax()]
    model = randomise(made(layers, (5,), "float64"))
    x = data(model, 50)
    assert_close(loaded(model, tmp_path).predict(x), model.predict(x))


def test_what_is_kept_beside_the_layers_is_no_matter(tmp_path, rng):
    """Optimizer, losses, masks and regularizers are read by nobody here."""
    model = nb.Sequential([nb.Input((6,)), nb.Dense(8, "relu", kernel_regularizer="l2"), nb.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = rng.normal(size=(60, 6))
    model.fit(x, rng.integers(0, 2, 60), epochs=2, verbose=0)
    pruned = nb.prune(model, 0.5)
    assert_close(loaded(pruned, tmp_path).predict(x), pruned.predict(x))


def test_compressed_files(tmp_path, rng):
    x = rng.normal(size=(200, 6)).astype(F32)
    model = nb.prune(randomise(made([nb.Dense(20, "relu"), nb.Dense(3)], (6,), "float32")), 0.7)
    model.save(tmp_path / "model.nbd", compressed=True)
    assert_close(runtime.load_model(tmp_path / "model.nbd").predict(x), model.predict(x))
    for bits in (8, 4):
        quantized = quantize(model, x, bits=bits)
        quantized.save(tmp_path / "model.nbd", compressed=True)
        mine = runtime.load_model(tmp_path / "model.nbd")
        np.testing.assert_array_equal(mine.predict_integers(x), quantized.predict_integers(x))


def test_a_model_among_the_layers(tmp_path):
    inner = nb.Sequential([nb.Input((5,)), nb.Dense(6, "tanh"), nb.Residual([nb.Dense(6)])], name="inner")
    model = randomise(made([nb.Dense(5, "relu"), inner, nb.Dense(2)], (4,), "float32"))
    x = data(model, 50)
    assert_close(loaded(model, tmp_path).predict(x), model.predict(x))


def test_rows_that_are_not_finite(tmp_path):
    model = randomise(made([nb.Dense(4, "tanh"), nb.Dense(2)], (3,), "float32"))
    x = np.array([[1, 2, 3], [np.nan, 0, 0], [np.inf, 0, 0], [-3, 2, 1]], F32)
    computed, expected = loaded(model, tmp_path).predict(x), model.predict(x)
    np.testing.assert_array_equal(np.isnan(computed), np.isnan(expected))
    assert_close(computed[[0, 3]], expected[[0, 3]])


def test_a_custom_activation_is_refused_by_name(tmp_path):
    sine = activations.custom("sine", lambda z: math.sin(z), lambda z: math.cos(z))
    model = nb.Sequential([nb.Input((3,)), nb.Dense(4, sine), nb.Dense(2)])
    with pytest.raises(FileFormatError, match="'sine' is one of your own.*nbdense.load_model"):
        loaded(model, tmp_path)
    x = np.random.default_rng(0).normal(size=(50, 3))
    table = quantize(model, x)
    np.testing.assert_array_equal(loaded(table, tmp_path).predict_integers(x), table.predict_integers(x))
    with pytest.raises(FileFormatError, match="'sine' is one of your own"):
        loaded(quantize(model, scheme="weight_only"), tmp_path)


def test_another_kind_of_file_is_refused(tmp_path):
    write_tensors(tmp_path / "file", "weights", {}, {"a": np.zeros(1)})
    with pytest.raises(FileFormatError, match="holds a 'weights', which nbdense.runtime has no form of"):
        runtime.load_model(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="no model file"):
        runtime.load_model(tmp_path / "nothing")
    assert set(READERS) == {"model", "quantized model", "sparse model"}


# -- quantized models --


def test_every_kind_of_quantized_layer_has_a_reader():
    assert set(quantized.LAYERS) == set(QUANTIZED_LAYERS)


def assert_integers_are_equal(network, folder, rows=300):
    model = QuantizedModel(network)
    mine = loaded(model, folder)
    x = np.random.default_rng(7).normal(0, 1.5, (rows, *network.input_shape)).astype(F32)
    x[1:4].reshape(3, -1)[:, 0] = np.nan, np.inf, -np.inf
    computed, expected = mine.predict_integers(x), model.predict_integers(x)
    assert computed.dtype == expected.dtype
    np.testing.assert_array_equal(computed, expected)
    assert_close(mine.predict(x), model.predict(x))
    for i in range(4):
        np.testing.assert_array_equal(mine.predict_integers(x[i : i + 1]), expected[i : i + 1])


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("seed", range(12))
def test_drawn_networks(seed, rounding, tmp_path):
    """Tables, sums, flattens, positions, both dtypes, softmax in float."""
    assert_integers_are_equal(dataclasses.replace(draw_network(seed), rounding=rounding), tmp_path)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_all_integer_layers(dtype, rounding, tmp_path):
    d = Drawn(3, dtype)
    a, b, c, e = d.format(0.02), d.format(0.03), d.format(0.05), d.format(0.02)
    least = {"int8": -128, "uint8": 0}[dtype]
    layers = [
        d.dense(30, 17, a, b, "relu6", alpha=3.3, positions=2, bits=8),
        d.dense(17, 17, b, e, "hard_tanh", "second", alpha=(-1.0, 0.7), positions=2, granularity="per_tensor"),
        QuantizedAdd("add", 17, (b[0], e[0]), (b[1], e[1]), *c, "relu6", 4.0, inputs=(1, 2), positions=2),
        QuantizedActivation("t", 17, *c, *a, d.table("tanh", c, a), "tanh", positions=2),
        QuantizedFlatten("flat", 17, *a, positions=2),
        QuantizedSoftmax("sm", 34, *a, least, exponentials(a[0])),
    ]
    assert_integers_are_equal(QuantizedNetwork(layers, dtype, rounding), tmp_path)


def test_sums_beyond_float32(tmp_path):
    """Large weights and biases, up to what int32 holds."""
    d = Drawn(4)
    a, b = d.format(0.02), d.format(0.03)
    layer = d.dense(3000, 3, a, b)
    layer.kernel[:] = np.where(layer.kernel > 0, 127, -128)
    layer.bias[:] = 2**30, -(2**30), 12345
    for rounding in ROUNDINGS:
        assert_integers_are_equal(QuantizedNetwork([layer], rounding=rounding), tmp_path, 50)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tables(name, tmp_path):
    d = Drawn(5)
    a = d.format(0.02)
    assert_integers_are_equal(QuantizedNetwork([d.looked_up(9, 7, a, name)[0]]), tmp_path)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight_only"])
def test_quantized_models(scheme, bits, tmp_path, rng):
    layers = [nb.Dense(20, "relu"), nb.BatchNormalization(), nb.Residual([nb.Dense(20, "tanh"), nb.Dense(20)])]
    model = randomise(made([*layers, nb.Dense(5, "softmax")], (12,), "float32"))
    x = rng.normal(size=(1000, 12)).astype(F32)
    options = {"calibration": x} if scheme == "static" else {}
    for granularity in ("per_channel", "per_tensor"):
        made_of = quantize(model, scheme=scheme, bits=bits, granularity=granularity, **options)
        mine = loaded(made_of, tmp_path)
        assert_close(mine.predict(x), made_of.predict(x))
        if scheme == "static":
            np.testing.assert_array_equal(mine.predict_integers(x), made_of.predict_integers(x))
        else:
            with pytest.raises(ValueError, match="computes in float"):
                mine.predict_integers(x)


def test_dynamic_layers(tmp_path):
    """A call's scale is that of all its rows; a NaN or an infinity does not count, and makes no row but its own one."""
    d = Drawn(6)
    layers = [d.dynamic(40, 30, "relu"), d.dynamic(30, 3, "sigmoid", bias=False, granularity="per_tensor")]
    model = QuantizedModel(QuantizedNetwork(layers))
    mine, x = loaded(model, tmp_path), np.random.default_rng(1).normal(size=(3000, 40)).astype(F32)
    assert_close(mine.predict(x), model.predict(x))
    x[:4, 0] = np.nan, np.inf, -np.inf, 1e30
    np.testing.assert_array_equal(np.isnan(mine.predict(x)), np.isnan(model.predict(x)))
    assert_close(mine.predict(x), model.predict(x))
    assert_close(mine.predict(0 * x[4:5]), model.predict(0 * x[4:5]))


def test_float_layers_between_integers(tmp_path):
    d = Drawn(7)
    a, b = d.format(0.02), d.format(0.03)
    scale = np.random.default_rng(2).uniform(0.5, 2, 9).astype(F32)
    layers = [
        d.float_dense(6, 9, "gelu", positions=2),
        FloatLayer("ln", "layer_norm", 9, {"gamma": scale}, alpha=1e-3, positions=2),
        FloatLayer("sum", "add", 9, inputs=(1, 2), positions=2),
        FloatLayer("act", "activation", 9, {}, "elu", 0.5, positions=2),
        FloatLayer("bn", "batch_norm", 9, {"mean": scale, "variance": scale}, alpha=1e-3, positions=2),
        FloatLayer("rms", "rms_norm", 9, {"scale": scale}, alpha=1e-3, positions=2),
        FloatLayer("flat", "flatten", 9, positions=2),
        d.dense(18, 9, a, b, "relu"),
        FloatLayer("end", "activation", 9, {}, "softmax"),
    ]
    model = QuantizedModel(QuantizedNetwork(layers))
    mine, x = loaded(model, tmp_path), np.random.default_rng(1).normal(size=(400, 2, 6)).astype(F32)
    # A float's last bit moves an integer to the other side of a half now and then.
    away = np.abs(mine.predict(x) - model.predict(x)).max(axis=1)
    assert (away > 1e-5).mean() < 0.05
    assert away.max() < 0.05


def test_kernel_zero_points(tmp_path):
    d = Drawn(8)
    a, b = d.format(0.02), d.format(0.03)
    points = np.random.default_rng(4).integers(-20, 20, 7).astype(np.int8)
    assert_integers_are_equal(QuantizedNetwork([d.dense(9, 7, a, b, kernel_zero_points=points)]), tmp_path)
    for layer in (
        d.dynamic(9, 7, kernel_zero_points=points),
        d.weight_only(9, 7, 4, 4, kernel_zero_points=np.array([points % 8 - 4] * 3, np.int8)),
    ):
        model = QuantizedModel(QuantizedNetwork([layer]))
        x = np.random.default_rng(1).normal(size=(50, 9)).astype(F32)
        assert_close(loaded(model, tmp_path).predict(x), model.predict(x))


def test_a_model_trained_with_rounding(tmp_path, rng):
    x = rng.normal(size=(200, 6)).astype(F32)
    model = quantize_aware(randomise(made([nb.Dense(9, "relu"), nb.Dense(3)], (6,), "float32")), x, bits=4)
    assert_close(loaded(model, tmp_path).predict(x), model.predict(x))


# -- sparse models --


def test_every_form_of_a_sparse_kernel_is_read():
    assert sparse.FORMS == FORMS


@pytest.mark.parametrize("compressed", [False, True])
def test_sparse_models(compressed, tmp_path, rng):
    """Blocks beyond the kernels' edges, layers that are dense in one of both programs, and 4 bits."""
    x, path = rng.normal(size=(300, 37)).astype(F32), tmp_path / "model.nbd"
    layers = [nb.Dense(29, "relu"), nb.BatchNormalization(), nb.Dense(18, "tanh"), nb.Dense(5, "softmax")]
    pruned = nb.prune(randomise(made(layers, (37,), "float32")), 0.8)
    names = [layer.name for layer in pruned.layers if type(layer) is nb.Dense]
    for form in ("1x1", "1x4", "1x8", "1x16"):
        model = nb.sparsify(pruned, choice=dict(zip(names, [form, (form, "dense"), "dense"], strict=True)))
        model.save(path, compressed=compressed)
        assert_close(runtime.load_model(path).predict(x), model.predict(x))
    for bits in (8, 4):
        model = nb.sparsify(quantize(pruned, x, bits=bits, activation_dtype="uint8"), choice="4x16")
        model.save(path, compressed=compressed)
        mine = runtime.load_model(path)
        np.testing.assert_array_equal(mine.predict_integers(x), model.predict_integers(x))
        assert_close(mine.predict(x), model.predict(x))


# -- the door --


def test_one_column_is_no_matrix(tmp_path):
    made([nb.Dense(3)], (1,), "float32").save(tmp_path / "m.nbdense")
    with pytest.raises(ValueError, match=r"got \(7,\); a column is x.reshape\(-1, 1\)"):
        runtime.load_model(tmp_path / "m.nbdense").predict(np.zeros(7))


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros((2, 4)), ValueError, r"expects shape \(rows, 5\), got \(2, 4\)"),
        (np.zeros(5), ValueError, r"one row is x.reshape\(1, 5\)"),
        (np.array([["a"] * 5]), TypeError, "expected numbers"),
        (np.zeros((2, 5), complex), TypeError, "expected numbers"),
        (np.ma.zeros((2, 5)), TypeError, "without a mask"),
    ],
)
def test_what_does_not_fit_is_refused(x, error, words, tmp_path):
    mine = loaded(made([nb.Dense(3)], (5,)), tmp_path)
    with pytest.raises(error, match=words):
        mine.predict(x)


def test_any_layout_and_number_of_rows(tmp_path, rng):
    model = randomise(made([nb.Dense(3, "relu")], (5,), "float32"))
    mine, x = loaded(model, tmp_path), rng.normal(size=(2500, 5))
    whole = mine.predict(x)
    assert mine.predict(x[:0]).shape == (0, 3)
    assert (mine.input_shape, mine.output_shape) == ((5,), (3,))
    for other in (x[::-1][::-1], np.asfortranarray(x), x.astype(F32), x.tolist()):
        assert_close(mine.predict(other), whole)
    np.testing.assert_array_equal(mine.predict(np.eye(5, dtype=int)), mine.predict(np.eye(5)))
