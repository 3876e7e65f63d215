"""Quantization-aware training: rounding as quantize's, gradients straight through it, and what training makes of it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nbdense as nb
from nbdense import layers as k
from nbdense.files import FileFormatError, TensorFile, write_tensors
from nbdense.layers import layer_from_config
from nbdense.layers.fake_quantization import FakeQuantize, FakeQuantizedDense, FakeQuantizedResidual
from nbdense.quant import prune, quantize
from nbdense.quant.calibration.calibration import Ranges
from nbdense.quant.calibration.trained import trained_ranges
from nbdense.quant.layers.activations import activation_parameters
from nbdense.quant.schemes.options import Options
from nbdense.quant.training.aware import _check_rows, _with_ranges, quantize_aware
from tests.reference import naive_integer

FUNCTIONS = {"tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z))}


def made(layers, n_in, dtype="float32", seed=3):
    model = nb.Sequential([k.Input((n_in,)), *layers], dtype=dtype)
    model.seed = seed
    return model


def classifier(hidden=("relu", "tanh"), widths=(20, 33, 17, 5), final="softmax", seed=3, **options):
    """A compiled model that has learned something, and its data."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(600, widths[0])).astype(np.float32)
    y = (x @ rng.normal(size=(widths[0], widths[-1]))).argmax(axis=1)
    layers = [k.Dense(n, name) for n, name in zip(widths[1:], (*hidden, final), strict=True)]
    model = made(layers, widths[0], seed=seed)
    loss = nb.SparseCategoricalCrossentropy(from_logits=final != "softmax")
    model.compile(nb.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=5, verbose=0)
    return model, x, y


def integer_layers(trained):
    """The integer model of what training has settled, as tests/reference/naive_integer.py has it."""
    limit = {8: 127, 4: 7}[trained.bits]
    dtype, ranges = trained.activation_dtype, trained.ranges
    given = naive_integer.activation_parameters(*ranges.input, dtype)
    layers = []
    for row, pre in zip(trained.network.rows(), ranges.pre, strict=True):
        scales, name = trained.kernel_scales[row.index], row.activation.name
        before = after = naive_integer.activation_parameters(*pre, dtype)
        table = None
        if name in FUNCTIONS:
            scale, zero_points = naive_integer.FIXED_OUTPUTS[name]
            after = scale, zero_points[dtype]
            table = naive_integer.activation_table(FUNCTIONS[name], *before, *after, dtype)
        bias = np.zeros(row.n_out) if row.bias is None else row.bias
        layers.append(
            naive_integer.IntegerDense(
                naive_integer.quantize_weights(row.kernel, scales, limit=limit),
                scales,
                naive_integer.quantize_bias(bias, given[0], scales),
                *given,
                *before,
                name if name in ("relu", "relu6") else "linear",
                table,
            )
        )
        given = after
    return layers


def integers_of(aware, x):
    """(what a fake-quantized model gives before its softmax, counted in steps; what the integer model gives)."""
    trained = trained_ranges(aware.network)
    expected = naive_integer.integer_mlp_forward(x, integer_layers(trained), trained.activation_dtype)
    if aware.layers[-1].kind == "activation":
        aware = aware.upto(aware.layers[-2].name)
    scale, zero_point = activation_parameters(trained.ranges.pre[-1], trained.activation_dtype)
    return np.rint(aware.predict(x) / scale).astype(np.int64) + zero_point, expected.astype(np.int64)


# -- models --


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("hidden", [("relu", "relu"), ("tanh", "sigmoid"), ("relu6", "linear")])
def test_what_evaluate_says_is_what_integers_give(hidden, dtype, bits):
    model, x, y = classifier(hidden, final="softmax" if hidden[0] == "relu" else "linear")
    aware = quantize_aware(model, x[:300], bits=bits, activation_dtype=dtype)
    for trained in (False, True):
        if trained:
            aware.fit(x, y, epochs=2, verbose=0)
        found, expected = integers_of(aware, x)
        assert np.abs(found - expected).max() <= 2
        assert (found == expected).mean() > 0.997
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.998
        share = (expected.argmax(axis=1) == y).mean()
        assert abs(aware.evaluate(x, y, return_dict=True)["accuracy"] - share) <= 0.003


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_before_training_it_is_the_quantized_model(dtype):
    model, x, _ = classifier()
    aware = quantize_aware(model, x, activation_dtype=dtype)
    quantized = quantize(model, x, activation_dtype=dtype)
    differ = np.abs(aware.predict(x) - quantized.predict(x)).max(axis=1) > 1e-5
    assert differ.mean() < 0.02
    trained = trained_ranges(aware.network)
    for row, pre, layer in zip(trained.network.rows(), trained.ranges.pre, quantized.network.layers, strict=True):
        np.testing.assert_array_equal(trained.kernel_scales[row.index], layer.kernel_scales)
        assert activation_parameters(pre, dtype) == (layer.pre_scale, layer.pre_zero_point)


def test_four_bits_learn_what_rounding_loses():
    """On scikit-learn's digits, against the same scales without training, and the largest weight at 7 as well."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x / 16, y, test_size=600, random_state=0, stratify=y)
    lost, kept = [], []
    for seed in range(3):
        model = made([k.Dense(12, "relu"), k.Dense(8, "relu"), k.Dense(10, "softmax")], 64, seed=seed)
        model.compile(nb.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
        model.fit(x, y, epochs=40, verbose=0)
        float_score = model.evaluate(x_test, y_test)[1]
        aware = quantize_aware(model, x, bits=4, granularity="per_tensor")
        rounded = aware.evaluate(x_test, y_test)[1]
        aware.compile(nb.Adam(0.002), "sparse_categorical_crossentropy", ["accuracy"])
        aware.fit(x, y, epochs=20, verbose=0)
        lost.append(float_score - rounded)
        kept.append(float_score - aware.evaluate(x_test, y_test)[1])
    assert np.mean(lost) > 0.02 and np.mean(kept) < 0.4 * np.mean(lost) and np.mean(kept) < 0.015


def test_an_end_at_zero_stays_there():
    """Relu's zero point is the type's minimum: exporters drop it on the strength of this."""
    model, x, y = classifier(("relu", "relu"))
    aware = quantize_aware(model, x, bits=4)
    aware.fit(x, y, epochs=3, verbose=0)
    trained = trained_ranges(aware.network)
    for low, high in trained.ranges.output[:2]:
        assert low == 0 and activation_parameters((low, high), "int8")[1] == -128
    assert any((view != 1).any() for name, view in aware.parameters.items() if name.endswith("range_factor"))


def test_it_is_a_model_like_any_other(tmp_path):
    """Saved, loaded, copied; its model stays what it was; what was pruned stays pruned."""
    model, x, y = classifier()
    model = prune(model, 0.5)
    before = model.get_weights()
    aware = quantize_aware(model, x, bits=4, granularity="per_tensor")
    assert type(aware.optimizer) is nb.Adam and aware.optimizer is not model.optimizer
    assert aware.epochs_trained == model.epochs_trained and aware.name == model.name
    aware.fit(x, y, epochs=2, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    kernel = aware.parameters["dense/kernel"]
    assert ((kernel == 0) == (before[0] == 0)).all() and (kernel != before[0]).any()
    aware.save(tmp_path / "m")
    loaded = nb.load_model(tmp_path / "m")
    copied = loaded.with_network(loaded.network.copy())
    for other in (loaded, copied):
        np.testing.assert_array_equal(other.predict(x), aware.predict(x))
        assert other.evaluate(x, y) == aware.evaluate(x, y)
        assert other.network.quantization == aware.network.quantization
    both = trained_ranges(aware.network), trained_ranges(loaded.network)
    assert both[0].ranges == both[1].ranges and both[0].granularity == "per_tensor"
    np.testing.assert_array_equal(both[0].network.params, both[1].network.params)
    np.testing.assert_array_equal(both[0].network.tensors(both[0].network.mask)["dense/kernel"], before[0] != 0)
    for m in (aware, loaded):
        m.fit(x, y, epochs=4, initial_epoch=2, verbose=0)
    np.testing.assert_array_equal(aware.network.params, loaded.network.params)
    aware.summary(print_fn=lambda text: None)
    with pytest.raises(ValueError, match="already; fit it"):
        quantize_aware(aware, x)


def test_an_activation_of_its_own_and_batch_normalisation():
    """Both ways of writing a model give the same; a batch normalisation is folded first."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype("float32")
    apart = made([k.Dense(9), k.BatchNormalization(), k.ReLU(), k.Dense(7), k.Activation("tanh"), k.Dense(2)], 6)
    apart.compile("adam", "mse")
    apart.fit(x, x[:, :2], epochs=3, verbose=0)
    together = made([k.Dense(9, "relu"), k.Dense(7, "tanh"), k.Dense(2)], 6)
    together.set_weights(apart.fold_batch_normalization().get_weights())
    models = [quantize_aware(model, x, bits=4) for model in (apart, together)]
    np.testing.assert_array_equal(models[0].predict(x), models[1].predict(x))
    trained = [trained_ranges(model.network) for model in models]
    assert trained[0].ranges == trained[1].ranges
    np.testing.assert_array_equal(trained[0].network.params, trained[1].network.params)
    assert trained[0].network.names == ["dense", "dense_1", "dense_2"]
    assert models[0].optimizer is not None and models[1].optimizer is None


def block_model():
    inner = k.Residual([k.Dense(6, "tanh"), k.Dense(6)], name="inner")
    layers = [k.Dense(6), k.Residual([k.Dense(9, "relu"), k.Dropout(0.2), inner, k.Dense(9)], name="outer")]
    return made([*layers, k.ReLU(), k.Residual([k.Activation("sigmoid"), k.Dense(9)]), k.Dense(3, "softmax")], 5)


def test_residuals():
    """Rounding behind every row, in blocks and behind projections; taken out again, the same rows are left."""
    model = block_model()
    x = np.random.default_rng(0).normal(size=(50, 5)).astype("float32")
    rows = list(model.network.rows())
    wide = Ranges((-4.0, 4.0), [(-30.0, 30.0)] * len(rows), [(-31.0, 31.0)] * len(rows))
    _check_rows(model.network)
    aware = _with_ranges(model, model, wide, Options(), True)
    assert [layer.kind for layer in aware.layers].count("fake_quantized_residual") == 2
    assert aware.count_params() == sum(w.size for w in aware.get_weights())
    assert 0 < np.abs(aware.predict(x) - model.predict(x)).max() < 0.2
    trained = trained_ranges(aware.network)
    assert trained.network.names == [row.name for row in rows]
    for name, view in model.network.tensors().items():
        np.testing.assert_array_equal(trained.network.tensors()[name], view)
    kept = list(trained.network.rows())
    assert [row.kind for row in kept] == [row.kind for row in rows]
    assert [row.activation.name for row in kept] == [row.activation.name for row in rows]
    assert set(trained.kernel_scales) == {row.index for row in rows if row.kernel.ndim == 2}
    for row, pre, output in zip(rows, trained.ranges.pre, trained.ranges.output, strict=True):
        if row.activation.name in FUNCTIONS:
            assert output in ((-1.0, 127 / 128), (0.0, 255 / 256))
        else:
            assert output[1] in (30.0, 31.0) and pre[1] in (30.0, 31.0)


def apart_model():
    """Dropout between a dense layer and its activation, copies, and sums that are clamped."""
    block = k.Residual([k.Dense(12), k.Dropout(0.1), k.ReLU(), k.Activation("linear"), k.Dense(9)])
    table = [k.Dense(9), k.Dropout(0.1), k.Activation("tanh")]
    return made([*table, block, k.Activation("linear"), k.ReLU(6.0), k.Dropout(0.2), k.Dense(3), k.Softmax()], 5)


def positions_model():
    model = nb.Sequential([k.Input((4, 5)), k.Dense(6, "gelu"), k.Flatten(), k.Dense(7, "relu"), k.Dense(3)])
    model.seed = 1
    return model


def normalised_model():
    inner = k.Residual([k.Dense(9), k.BatchNormalization(), k.ReLU()])
    return made([k.Dense(9), k.BatchNormalization(), k.LeakyReLU(), inner, k.Dense(3, "sigmoid")], 5)


MODELS = {f.__name__: f for f in (block_model, apart_model, positions_model, normalised_model)}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", MODELS)
def test_quantize_takes_what_was_trained(name, dtype, bits):
    """The integer model gives what the rounded one does, but for a step of the last scale in a tiny share of places."""
    model = MODELS[name]()
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, *model.input_shape[1:])).astype("float32")
    y = rng.uniform(size=(400, 3)).astype("float32")
    model.compile(nb.Adam(0.005), "mse")
    model.fit(x, y, epochs=2, verbose=0)
    aware = quantize_aware(model, x, bits=bits, activation_dtype=dtype)
    aware.fit(x, y, epochs=2, verbose=0)
    expected, found = aware.predict(x), quantize(aware).predict(x)
    span = np.ptp(expected)
    assert (np.abs(expected - found) > 1e-4 * span).mean() < 0.003
    assert np.abs(expected - found).max() < 0.05 * span
    assert abs(aware.evaluate(x, y) - np.square(found - y).mean()) < 1e-3
    with pytest.raises(ValueError, match="symmetric must be False, with which quantize_aware trained, got True"):
        quantize(aware, symmetric=True)


# -- errors --


def norm_model():
    return made([k.BatchNormalization(), k.Dense(4, "relu"), k.Dense(2)], 3)


def norm_in_blocks():
    inner = k.Residual([k.LayerNormalization(name="1_f_0"), k.Dense(4)], name="inner")
    return made([k.Dense(4), k.Residual([inner, k.Dense(4)], name="block"), k.Dense(2)], 3)


def custom_model():
    own = nb.activations.custom("mine", lambda z: z * z, lambda z: 2 * z)
    return made([k.Dense(4, own, name="first"), k.Dense(2)], 3)


X = np.linspace(-1, 1, 30).reshape(10, 3)
MISTAKES = {
    "bits must be 8 or 4, got 5": lambda: quantize_aware(made([k.Dense(2)], 3), X, bits=5),
    "scheme must be 'static', got 'dynamic'": lambda: quantize_aware(made([k.Dense(2)], 3), X, scheme="dynamic"),
    "granularity must be": lambda: quantize_aware(made([k.Dense(2)], 3), X, granularity="block"),
    "quantize_aware: range_method must be 'minmax' or .*, got 'median'": (
        lambda: quantize_aware(made([k.Dense(2)], 3), X, range_method="median")
    ),
    "activation_dtype must be": lambda: quantize_aware(made([k.Dense(2)], 3), X, activation_dtype="int4"),
    "solver must be 'auto' or 'nearest', got 'gptq'": lambda: quantize_aware(made([k.Dense(2)], 3), X, solver="gptq"),
    "symmetric must be False": lambda: quantize_aware(made([k.Dense(2)], 3), X, symmetric=True),
    "equalize must be False": lambda: quantize_aware(made([k.Dense(2)], 3), X, equalize=True),
    "expected a Sequential, got Network": lambda: quantize_aware(made([k.Dense(2)], 3).network, X),
    "has no Dense layer": lambda: quantize_aware(made([k.Activation("relu")], 3), X),
    "layer 'batch_normalization' is not supported; only one beside": lambda: quantize_aware(norm_model(), X),
    "LayerNormalization layer '1_f_0' in block 'inner' in block 'block' is not supported; quantize takes it": (
        lambda: quantize_aware(norm_in_blocks(), X)
    ),
    "Dense layer 'first': activation 'mine' is one of your own": lambda: quantize_aware(custom_model(), X),
    "FakeQuantize layer 'input_values' has no ONNX form; write what nbdense.quantize makes": (
        lambda: nb.to_onnx(quantize_aware(made([k.Dense(2)], 3), X))
    ),
    "softmax is supported only as the last": lambda: quantize_aware(made([k.Dense(4, "softmax"), k.Dense(2)], 3), X),
    "calibration: the data is empty": lambda: quantize_aware(made([k.Dense(2)], 3), X[:0]),
    "FakeQuantize: low must not be above high": lambda: FakeQuantize(1.0, -1.0),
    "FakeQuantize: high must be a number": lambda: FakeQuantize(0.0, float("nan")),
    "FakeQuantize: low must be a number": lambda: FakeQuantize("0", 1.0),
    "FakeQuantize: dtype must be": lambda: FakeQuantize(0.0, 1.0, "int4"),
    "FakeQuantizedDense: kernel_bits must be 8 or 4, got 2": lambda: FakeQuantizedDense(3, 2),
    "FakeQuantizedResidual: kernel_bits": lambda: FakeQuantizedResidual([k.Dense(2)], kernel_bits=3),
    "unknown kind of layer 'fake'": lambda: layer_from_config("fake", {}),
    "that quantize_aware did not make": lambda: trained_ranges(made([FakeQuantize(0.0, 1.0)], 3).network),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(words):
    with pytest.raises(ValueError, match=words):
        MISTAKES[words]()


def test_weights_that_are_not_finite():
    model = made([k.Dense(2)], 3)
    model.parameters["dense/kernel"][0, 0] = np.nan
    with pytest.raises(ValueError, match="layer 'dense': its weights are not all finite"):
        quantize_aware(model, X)


def test_diagnosing_a_model_with_rounding():
    model, x, y = classifier()
    aware = quantize_aware(model, x)
    kinds = [record.kind for record in aware.diagnose(x, y).layers]
    assert kinds[0] == "fake_quantize" and "dense" in kinds


def test_a_plain_network_has_no_trained_ranges():
    model = norm_model()
    assert trained_ranges(model.network) is None
    assert not model.network.rounds_kernels and model.network.quantization == {}


def test_files_that_lie(tmp_path):
    model, x, _ = classifier()
    quantize_aware(model, x).save(tmp_path / "m")
    file = TensorFile(tmp_path / "m")
    tensors = {name: file.read(name) for name in file.shapes}
    for change in ({"low": 3.0, "high": 1.0}, {"dtype": "int3"}, {"high": "1"}, {"options": 3}, {"learned": True}):
        config = {**file.config, "layers": [dict(layer) for layer in file.config["layers"]]}
        config["layers"][1]["config"] = config["layers"][1]["config"] | change
        write_tensors(tmp_path / "bad", file.kind, config, tensors)
        with pytest.raises(FileFormatError):
            nb.load_model(tmp_path / "bad")
