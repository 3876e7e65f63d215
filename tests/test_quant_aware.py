"""Quantization-aware training: rounding as quantize's, gradients straight through it, and what training makes of it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import naive_fake_quant
import naive_integer
import nbdense as nb
from nbdense import layers as k
from nbdense.files import FileFormatError, TensorFile, write_tensors
from nbdense.layers import layer_from_config
from nbdense.layers.fake_quantization import FakeQuantize, FakeQuantizedDense, FakeQuantizedResidual
from nbdense.quant import prune, quantize
from nbdense.quant.calibration.calibration import Ranges
from nbdense.quant.calibration.trained import trained_ranges
from nbdense.quant.layers.activations import activation_parameters
from nbdense.quant.model.network import LIMITS
from nbdense.quant.schemes.options import Options
from nbdense.quant.training.aware import _check_rows, _with_ranges, kernel_scales, quantize_aware

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
    """The integer model of what training has settled, as tests/naive_integer.py has it."""
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


# -- rounding --


@pytest.mark.kernels
@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("bounds", [(-1.3, 2.9), (0.0, 6.1), (-5.0, 0.0), (0.3, 0.7), (-2e-3, 1e-3), (-3e7, 1.0)])
def test_values_are_quantizes(bounds, dtype, model_dtype):
    """To the bit: the same scale and zero point, half to even, saturating; zero stays zero, NaN stays NaN."""
    learned = made([FakeQuantize(*bounds, dtype)], 7, model_dtype)
    factors = np.array([0.8, 1.3], np.float32)
    learned.parameters["fake_quantize/range_factor"][...] = factors
    for model, used in (
        (made([FakeQuantize(*bounds, dtype, learned=False)], 7, model_dtype), bounds),
        (learned, [end * float(factor) for end, factor in zip(bounds, factors, strict=True)]),
    ):
        scale, zero_point = naive_integer.activation_parameters(*used, dtype)
        assert (float(scale), zero_point) == activation_parameters(tuple(used), dtype)
        least, most = LIMITS[dtype]
        steps = np.arange(least - 9, most + 9) - zero_point
        x = np.concatenate([steps * scale, (steps + np.float32(0.5)) * scale, [np.inf, -np.inf, 0.0]]).astype("float32")
        drawn = np.random.default_rng(0).normal(0, 200 * scale, 500).astype("float32")
        x = np.resize(np.concatenate([x, drawn]), (155, 7))
        expected = naive_integer.dequantize(naive_integer.quantize(x, scale, zero_point, dtype), scale, zero_point)
        if model_dtype == "float64":  # in which the quotient is taken then
            steps = np.clip(np.rint(x.astype(np.float64) / float(scale)), least - zero_point, most - zero_point)
            expected = steps * float(scale)
        np.testing.assert_array_equal(model.predict(x), expected)
        out = model.predict(np.array([[np.nan, 0, 1, 0, 0, 0, 0]], "float32"))
        assert np.isnan(out[0, 0]) and out[0, 1] == 0 and not np.isnan(out[0, 1:]).any()


def test_nothing_known_of_a_range_is_as_for_quantize():
    model = made([FakeQuantize(0.0, 0.0, "uint8")], 2)
    assert activation_parameters((0.0, 0.0), "uint8") == (float(np.float32(1 / 255)), 0)
    np.testing.assert_allclose(model.predict(np.array([[0.3, 3.0]])), [[np.rint(0.3 * 255) / 255, 1.0]], rtol=1e-6)


def test_factors_stop_before_a_range_is_gone():
    model = made([FakeQuantize(-1.0, 1.0)], 1)
    model.parameters["fake_quantize/range_factor"][...] = [-3.0, 1e-9]
    np.testing.assert_allclose(model.predict(np.array([[-5.0], [5.0]])), [[-1 / 16], [1 / 16]], rtol=0.02)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (4, 7)])
def test_kernels_are_read_rounded(bits, limit, dtype):
    """By everything that runs the network, whatever has been written into the parameters meanwhile."""
    model = made([FakeQuantizedDense(19, bits, use_bias=False)], 17, dtype)
    rng = np.random.default_rng(0)
    kernel, eye = rng.normal(size=(17, 19)).astype("float32"), np.eye(17, dtype=dtype)
    scales = rng.uniform(0.01, 0.4, 19).astype("float32")
    scales[3] = 0.0  # never from quantize_aware; a column of zeros then, not of NaN
    model.set_weights([kernel, scales])
    with np.errstate(divide="ignore", invalid="ignore"):
        rounded = np.clip(np.rint(kernel / scales), -limit, limit).astype(dtype) * scales.astype(dtype)
    rounded[:, 3] = 0
    np.testing.assert_array_equal(model.predict(eye), rounded)
    np.testing.assert_array_equal(model.forward(eye), rounded)
    np.testing.assert_allclose(model.backward(np.eye(17, 19)), rounded.T[:17], atol=0)
    np.testing.assert_allclose(model.gradients["fake_quantized_dense/kernel"], np.eye(17, 19), atol=0)
    np.testing.assert_array_equal(model.parameters["fake_quantized_dense/kernel"], kernel)
    model.parameters["fake_quantized_dense/kernel"][...] = 0
    assert not model.predict(eye).any() and not model.forward(eye).any()


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("limit", [127, 7])
def test_kernel_scales(limit, granularity):
    rng = np.random.default_rng(1)
    kernel = rng.standard_t(4, size=(300, 6)) * [1, 2, 0.1, 5, 1e-9, 0]
    scales = kernel_scales(kernel, np.zeros(6), 0.1, limit, granularity)
    largest = naive_integer.weight_scales(kernel, limit=limit, per_channel=granularity == "per_channel")

    def error(scales):
        return np.square(naive_integer.quantize_weights(kernel, scales, limit=limit) * scales - kernel).sum(axis=0)

    if granularity == "per_tensor":
        assert (scales == scales[0]).all()
        assert error(scales).sum() <= error(largest).sum()
    else:
        assert (error(scales) <= error(largest)).all()
    if limit == 127:
        np.testing.assert_array_equal(scales[:5], largest[:5])
    elif granularity == "per_channel":
        assert (error(scales)[:4] < 0.8 * error(largest)[:4]).all()
    assert (scales > 0).all()
    # A bias beside weights that are next to nothing keeps inside int32.
    bias = np.full(6, 1e3)
    scales = kernel_scales(kernel, bias, 0.1, limit, granularity)
    assert np.abs(naive_integer.quantize_bias(bias, np.float32(0.1), scales)).max() <= 2**26


# -- gradients --


@pytest.mark.kernels
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_gradients_are_slopes_with_the_rounding_held(training):
    """Of weights, inputs and both ends of every range, by central differences of the straight-through surrogate."""
    layers = [
        FakeQuantize(-2.0, 2.0, "uint8", learned=True, name="given"),
        FakeQuantizedDense(33, 4, activation="relu"),
        FakeQuantize(-0.3, 1.5, name="narrow"),
        FakeQuantizedDense(6, 8, name="second"),
        FakeQuantize(-1.0, 0.7, "uint8", name="before"),
        k.Activation("tanh"),
        FakeQuantize(-1.0, 127 / 128, learned=False, name="fixed"),
        FakeQuantizedDense(3, 4, name="third"),
        FakeQuantize(-0.4, 0.3, name="after"),
    ]
    model = made(layers, 5, "float64")
    rng = np.random.default_rng(5)
    for name, view in model.parameters.items():
        if name.endswith("scale"):
            view[...] = rng.uniform(0.1, 0.3, view.shape)
        else:
            view[...] = rng.uniform(0.7, 1.4, view.shape) if "factor" in name else rng.normal(size=view.shape) * 0.4
    x, pull = rng.normal(size=(6, 5)) * 2, rng.normal(size=(6, 3))
    out = model.forward(x, training=training)
    slope = model.backward(pull)
    gradients = {name: view.copy() for name, view in model.gradients.items()}
    parameters = {name: view.copy() for name, view in model.parameters.items()}
    described = [(layer.kind, layer.get_config()) for layer in model.layers]
    rounding = naive_fake_quant.rounding_of(described, parameters, x)
    surrogate = naive_fake_quant.surrogate(described, parameters, x, rounding)
    np.testing.assert_allclose(surrogate, out, rtol=1e-6, atol=1e-7)
    for held in rounding:  # nothing is so rare that its gradient is not seen
        inside = held.get("inside")
        assert inside is None or inside.any()
    assert sum((~held["inside"]).any() for held in rounding if "inside" in held) >= 4
    for name, view in {**parameters, "the input": x}.items():
        if name.endswith("scale"):
            continue
        found = slope if name == "the input" else gradients[name]
        for at in {tuple(rng.integers(0, view.shape)) for _ in range(12)}:
            before, values = view[at], []
            for change in (1e-5, -1e-5):
                view[at] = before + change
                values.append((naive_fake_quant.surrogate(described, parameters, x, rounding) * pull).sum())
            view[at] = before
            expected = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(found[at], expected, atol=2e-5, rtol=2e-5, err_msg=f"{name} {at}")


def test_a_range_that_does_not_learn_has_no_parameters():
    model = made([FakeQuantizedDense(4, 8), FakeQuantize(-1.0, 1.0, learned=False)], 3)
    assert list(model.parameters) == [f"fake_quantized_dense/{what}" for what in ("kernel", "bias", "kernel_scale")]
    frozen = made([FakeQuantizedDense(4, 8), FakeQuantize(-1.0, 1.0, trainable=False)], 3)
    frozen.compile(nb.SGD(0.1), "mse")
    rng = np.random.default_rng(0)
    before = frozen.get_weights()
    frozen.fit(rng.normal(size=(40, 3)) * 3, rng.normal(size=(40, 4)), verbose=0)
    moved = [(old != new).any() for old, new in zip(before, frozen.get_weights(), strict=True)]
    assert moved == [True, True, False, False]


def test_ranges_learn_and_are_not_decayed():
    """A range that is far too wide or too narrow finds its values; weight decay does not pull at factors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 2))
    for high, direction in ((0.5, 1), (40.0, -1)):
        model = made([FakeQuantize(-high, high)], 2)
        model.compile(nb.Adam(0.01), "mse")
        first = model.evaluate(x, x)
        model.fit(x, x, epochs=15, verbose=0)
        assert model.evaluate(x, x) < 0.7 * first
        factors = model.parameters["fake_quantize/range_factor"]
        assert (np.sign(factors - 1) == direction).all()
    model = made([FakeQuantize(-1.0, 1.0), FakeQuantizedDense(2)], 2)
    model.compile(nb.SGD(0.0, weight_decay=0.5), "mse")
    model.compile(nb.AdamW(1e-9, weight_decay=1e7), "mse")
    before = np.abs(model.parameters["fake_quantized_dense/kernel"]).sum()
    model.fit(x, x, verbose=0)
    np.testing.assert_allclose(model.parameters["fake_quantize/range_factor"], 1.0, atol=1e-6)
    assert np.abs(model.parameters["fake_quantized_dense/kernel"]).sum() < 0.95 * before


def test_an_end_at_zero_stays_there():
    """Relu's zero point is the type's minimum: exporters drop it on the strength of this."""
    model, x, y = classifier(("relu", "relu"))
    aware = quantize_aware(model, x, bits=4)
    aware.fit(x, y, epochs=3, verbose=0)
    trained = trained_ranges(aware.network)
    for low, high in trained.ranges.output[:2]:
        assert low == 0 and activation_parameters((low, high), "int8")[1] == -128
    assert any((view != 1).any() for name, view in aware.parameters.items() if name.endswith("range_factor"))


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
    "LayerNormalization layer '1_f_0' in Residual 'inner' in Residual 'block' is not supported; quantize takes it": (
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
