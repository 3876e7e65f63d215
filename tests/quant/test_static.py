"""quantize(): scales, integers and tables against the naive reference; edge cases; errors; files."""

import json

import numpy as np
import pytest

from nbdense import activations
from nbdense.files import FileFormatError, TensorFile, write_tensors
from nbdense.layers import Dense, Input
from nbdense.models import Sequential
from nbdense.network.builder import NetworkBuilder
from nbdense.quant import QuantizedModel, QuantizedNetwork, quantize
from nbdense.quant.calibration.calibration import BATCH, calibrate
from nbdense.quant.kernels.rounding import CODES
from nbdense.quant.layers.activations import FIXED_OUTPUTS, activation_parameters
from nbdense.quant.model.network import LIMITS
from tests.reference import naive, naive_integer

FUNCTIONS = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "softmax": naive.softmax,
}


def make_network(layers, dtype=np.float32):
    """A Network of (kernel, bias, activation name) triples."""
    builder = NetworkBuilder(layers[0][0].shape[0], dtype)
    for i, (kernel, bias, name) in enumerate(layers):
        at = builder.parameter(f"d{i}/kernel", np.asarray(kernel, dtype))
        bias_at = -1 if bias is None else builder.parameter(f"d{i}/bias", np.asarray(bias, dtype))
        builder.dense(f"d{i}", kernel.shape[1], activations.get(name), at, bias_at)
    return builder.finish()


def draw_layers(rng, widths, names):
    return [
        (rng.normal(size=(n_in, n_out)) / np.sqrt(n_in), rng.normal(size=n_out) * 0.2, name)
        for n_in, n_out, name in zip(widths[:-1], widths[1:], names, strict=True)
    ]


def forward(layers, x):
    """Each layer's (pre-activation, output), in float64."""
    seen = []
    for kernel, bias, name in layers:
        z = x @ kernel + (0 if bias is None else bias)
        x = FUNCTIONS[name](z)
        seen.append((z, x))
    return seen


def largest_error(layers, x, calibration=None, **options):
    """Return the largest error of the quantized network's outputs, in float."""
    model = quantize(make_network(layers), x if calibration is None else calibration, **options)
    return np.abs(model.predict(x) - forward(layers, x)[-1][1]).max()


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# -- right answers --


@pytest.mark.parametrize("rounding", CODES)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize(
    "names", [["relu", "relu", "softmax"], ["sigmoid", "tanh", "linear"], ["tanh", "relu", "sigmoid"]]
)
def test_outputs_are_close_to_the_float_networks(rng, names, granularity, dtype, rounding):
    layers = draw_layers(rng, [20, 64, 33, 7], names)
    x = rng.normal(size=(BATCH + 9, 20))
    options = {"granularity": granularity, "activation_dtype": dtype, "rounding": rounding}
    error = largest_error(layers, x, **options)
    span = np.ptp(forward(layers, x)[-1][1])
    assert 0 < error < 0.05 * span


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_are_the_naive_references(rng, per_channel, dtype):
    layers = draw_layers(rng, [13, 17, 5, 3, 4], ["relu", "sigmoid", "tanh", "linear"])
    network = make_network(layers)
    x = rng.normal(size=(50, 13))
    q = quantize(network, x, granularity="per_channel" if per_channel else "per_tensor", activation_dtype=dtype).network
    ranges = calibrate(network, x)
    given = naive_integer.activation_parameters(*ranges.input, dtype)
    for row, layer, pre in zip(network.rows(), q.layers, ranges.pre, strict=True):
        name = row.activation.name
        assert (layer.input_scale, layer.input_zero_point) == given
        before = np.float32(layer.pre_scale), layer.pre_zero_point
        after = np.float32(layer.output_scale), layer.output_zero_point
        expected = naive_integer.quantize_dense(row.kernel, row.bias, given, before, per_channel=per_channel)
        np.testing.assert_array_equal(layer.kernel, expected.kernel)
        np.testing.assert_array_equal(layer.kernel_scales, expected.kernel_scales)
        np.testing.assert_array_equal(layer.bias, expected.bias)
        if name in FIXED_OUTPUTS:
            scale, zero_points = naive_integer.FIXED_OUTPUTS[name]
            assert after == (scale, zero_points[dtype])
            table = naive_integer.activation_table(FUNCTIONS[name], *before, *after, dtype)
            np.testing.assert_array_equal(layer.table, table)
        else:
            assert before == after == naive_integer.activation_parameters(*pre, dtype)
            assert layer.table is None
        given = after


def test_zero_point_of_relu_is_the_least_integer(rng):
    """Exporters drop Relu on the strength of this."""
    network = make_network(draw_layers(rng, [5, 6, 3], ["relu", "relu"]))
    for dtype, (low, _) in LIMITS.items():
        q = quantize(network, rng.normal(size=(9, 5)), activation_dtype=dtype).network
        assert [layer.output_zero_point for layer in q.layers] == [low, low]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranges_are_least_and_greatest_values(rng, dtype):
    layers = draw_layers(rng, [6, 15, 17, 4], ["tanh", "relu", "softmax"])
    x = rng.normal(size=(2 * BATCH + 3, 6)).astype(dtype)
    ranges = calibrate(make_network(layers, dtype), x)
    seen = forward(layers, x.astype(np.float64))
    assert ranges.input == (x.min(), x.max())
    for (z, y), (_, _, name), pre, output in zip(seen, layers, ranges.pre, ranges.output, strict=True):
        bare = y if name == "relu" else z
        np.testing.assert_allclose(pre, (bare.min(), bare.max()), rtol=1e-5)
        np.testing.assert_allclose(output, (y.min(), y.max()), rtol=1e-5)


def test_activation_parameters(rng):
    bounds = [(-1, 1), (0, 5), (3, 5), (-7, -2), (-1e-30, 1e-30), (-3e38, 3e38), *rng.normal(size=(50, 2)).tolist()]
    for low, high in bounds:
        for dtype in LIMITS:
            expected = naive_integer.activation_parameters(low, max(low, high), dtype)
            assert activation_parameters((low, max(low, high)), dtype) == expected


def test_model_is_left_as_it_was_and_inputs_may_be_lists(rng):
    network = make_network(draw_layers(rng, [3, 4, 2], ["relu", "softmax"]))
    before = network.params.copy()
    x = rng.normal(size=(8, 3))
    model = quantize(network, x.tolist())
    np.testing.assert_array_equal(network.params, before)
    np.testing.assert_array_equal(model.predict(x.tolist()), model.predict(np.asfortranarray(x, np.float32)))
    assert model.predict(x[:0]).shape == (0, 2)
    assert model.predict(x).sum(axis=1) == pytest.approx(1)
    # int8 weights; int32 biases and float32 scales
    assert model.size_bytes == 3 * 4 + 4 * 2 + (4 + 2) * 8


def test_takes_a_model(rng):
    model = Sequential([Input((5,)), Dense(6, activation="relu"), Dense(3, activation="softmax")])
    x = rng.normal(size=(40, 5)).astype(np.float32)
    q = quantize(model, x)
    np.testing.assert_allclose(q.predict(x), model.predict(x), atol=0.03)


def test_what_is_outside_the_calibrated_range_saturates(rng):
    model = quantize(make_network([(np.eye(2), np.zeros(2), "linear")]), np.array([[-1.0, 1.0]]))
    got = model.predict(np.array([[-50.0, 1e300], [-np.inf, 0.5]]))
    np.testing.assert_allclose(got, [[-1, 1], [-1, 0.5]], atol=0.01)


# -- edges --


def test_channels_without_weights(rng):
    layers = draw_layers(rng, [6, 8, 3], ["relu", "linear"])
    layers[0][0][:, 2] = 0
    layers[0][0][:, 5] = 0
    layers[0][1][5] = 0
    layers[1][0][:, 1] = 0
    layers[1][1][1] = 1.234
    x = rng.normal(size=(30, 6))
    for granularity in ("per_channel", "per_tensor"):
        assert largest_error(layers, x, granularity=granularity) < 0.05


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_a_kernel_of_zeros(rng, granularity):
    layers = [(np.zeros((4, 3)), np.array([0.5, -3.0, 0.0]), "linear")]
    assert largest_error(layers, rng.normal(size=(9, 4)), granularity=granularity) < 0.01


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-20, 1e-40, 1e20])
def test_constant_calibration_data(rng, value):
    layers = draw_layers(rng, [4, 8, 3], ["relu", "linear"])
    x = np.full((5, 4), value)
    assert largest_error(layers, x) < 0.02 * max(1, abs(value))


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "linear"])
def test_dead_units(rng, name):
    layers = draw_layers(rng, [4, 8, 3], ["relu", name])
    layers[0][1][:] = -1000
    assert largest_error(layers, rng.normal(size=(20, 4))) < 0.01


@pytest.mark.parametrize("rounding", CODES)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("size", [1e-3, 1e-9, 1e-20, 1e-38, 1e-42])
def test_scales_so_small_that_a_bias_would_not_fit(rng, size, granularity, rounding):
    layers = draw_layers(rng, [4, 6, 3], ["linear", "linear"])
    layers[0][0][:, 1] *= size
    layers[0][1][1] = 3.0
    layers[1][0][...] *= size
    x = rng.normal(size=(20, 4))
    assert largest_error(layers, x, granularity=granularity, rounding=rounding) < 0.05
    assert largest_error(layers, x * size, granularity=granularity, rounding=rounding) < 0.05


def test_scales_out_of_float32s_reach():
    layers = [(np.full((1, 1), 3e38), np.zeros(1), "relu"), (np.full((1, 1), 3e38), np.zeros(1), "linear")]
    for dtype in (np.float32, np.float64):
        with pytest.raises(ValueError, match="layer 'd1'.*not finite"):
            quantize(make_network(layers, dtype), np.array([[1.0]]))
    layers = [(np.ones((1, 1)), np.full(1, 1e38), "linear")]
    with pytest.raises(ValueError, match="layer 'd0': the scales .* too far apart"):
        quantize(make_network(layers), np.array([[1e-34]]))
    layers = [(np.full((1, 1), 1e200), np.zeros(1), "linear")]
    with pytest.raises(ValueError, match="layer 'd0': the scales .* too far apart"):
        quantize(make_network(layers, np.float64), np.array([[1e-190]]))


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e8, 1e30])
def test_saturated_tables_keep_their_slope(rng, name, size):
    """A few huge pre-activations do not coarsen the table for the rest."""
    layers = [(np.eye(2), np.zeros(2), name)]
    x = np.concatenate([rng.uniform(-3, 3, (50, 2)), [[size, -size]]])
    model = quantize(make_network(layers), x)
    assert model.network.layers[0].pre_scale < 16 / 255
    ordinary = quantize(make_network(layers), x[:50]).network.layers[0]
    assert ordinary.pre_scale < 6 / 255


# -- errors --


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("scheme", "ternary"),
        ("bits", 3),
        ("granularity", "per_row"),
        ("range_method", "guess"),
        ("activation_dtype", "int16"),
        ("symmetric", "no"),
        ("softmax", "int"),
        ("solver", "adaround"),
        ("equalize", 3),
        ("bias_correction", None),
        ("block_size", 0),
        ("rounding", "up"),
    ],
)
def test_unknown_options_are_refused_by_name(rng, option, value):
    network = make_network(draw_layers(rng, [3, 2], ["linear"]))
    with pytest.raises(ValueError, match=f"quantize: {option} must be .*got {value!r}"):
        quantize(network, rng.normal(size=(5, 3)), **{option: value})


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, ValueError, "needs calibration data"),
        (np.zeros((0, 3)), ValueError, "empty"),
        (np.zeros((4, 2)), ValueError, r"layer 'd0' expects shape \(rows, 3\), got \(4, 2\)"),
        (np.zeros(3), ValueError, r"\(rows, 3\), got \(3,\)"),
        (np.array([["a", "b", "c"]]), TypeError, "numbers"),
        ([[0, 0, 0], [0, np.nan, 0]], ValueError, "row 1, column 1"),
        ([[0, 0, np.inf]], ValueError, "row 0, column 2"),
        ([[0, 1e300, 0]], ValueError, "row 0, column 1"),
    ],
)
def test_unfit_calibration_data(rng, data, error, message):
    network = make_network(draw_layers(rng, [3, 2], ["linear"]))
    with pytest.raises(error, match=message):
        quantize(network, data)


def test_unfit_inputs(rng):
    model = quantize(make_network(draw_layers(rng, [3, 2], ["linear"])), rng.normal(size=(5, 3)))
    with pytest.raises(ValueError, match=r"layer 'd0' expects shape \(rows, 3\), got \(4, 2\)"):
        model.predict(np.zeros((4, 2)))
    with pytest.raises(TypeError, match="numbers"):
        model.predict(np.array([["a", "b", "c"]]))
    with pytest.raises(ValueError, match="batch_size"):
        model.predict(np.zeros((4, 3)), batch_size=0)


def test_unfit_networks(rng):
    x = rng.normal(size=(5, 3))
    with pytest.raises(ValueError, match="expected a built model"):
        quantize("model", x)
    with pytest.raises(ValueError, match="the model is not built"):
        quantize(Sequential([Dense(2)]), x)
    layers = draw_layers(rng, [3, 2], ["linear"])
    layers[0][0][1, 1] = np.nan
    with pytest.raises(ValueError, match="layer 'd0'.*finite"):
        quantize(make_network(layers), x)


def test_a_layer_that_could_pass_int32_is_refused_by_name():
    n_in = 66_400
    network = make_network([(np.ones((n_in, 1)), np.zeros(1), "linear")])
    with pytest.raises(ValueError, match="layer 'd0': with 66,400 inputs .* int32"):
        quantize(network, np.ones((2, n_in), np.float32))
    # Weights that are not at full range leave room for more inputs.
    kernel = np.full((n_in, 1), 0.5)
    kernel[0] = 1
    quantize(make_network([(kernel, np.zeros(1), "linear")]), np.ones((2, n_in), np.float32))


# -- files --


def test_save_and_load(rng, tmp_path):
    from nbdense.models import load_model

    network = make_network(draw_layers(rng, [5, 6, 4, 3], ["tanh", "relu", "softmax"]))
    x = rng.normal(size=(20, 5))
    for options in ({}, {"activation_dtype": "uint8", "rounding": "tflite", "granularity": "per_tensor"}):
        model = quantize(network, x, **options)
        model.save(tmp_path / "q.safetensors")
        loaded = load_model(tmp_path / "q.safetensors")
        assert isinstance(loaded, QuantizedModel)
        np.testing.assert_array_equal(loaded.predict_integers(x), model.predict_integers(x))
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
        assert loaded.network.to_tensors()[1] == model.network.to_tensors()[1]
        assert loaded.network.layers[0].kernel.dtype == np.int8


def _damage(key, value):
    def change(tensors, config):
        if key in tensors:
            tensors[key] = value(tensors[key])
        elif key in config:
            config[key] = value(config[key])
        else:
            config["layers"][1][key] = value(config["layers"][1][key])

    return change


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("0/kernel", lambda a: a.astype(np.int16), "'d0': kernel must be int8"),
        ("0/kernel", lambda a: a[:, :1], "d0"),
        ("1/bias", lambda a: a[:1], "'d1': bias must be int32"),
        ("1/bias", lambda a: np.full_like(a, 2**31 - 1), "'d1'.*int32"),
        ("1/kernel_scales", lambda a: a * 0, "'d1'.*scales"),
        ("1/kernel_scales", lambda a: a * np.float32(np.nan), "'d1'.*scales"),
        ("0/table", lambda a: a[:9], "'d0': table must be int8"),
        ("activation", lambda _: "swoosh", "'d1': activation 'swoosh' needs a table"),
        ("input_scale", lambda _: -1.0, "'d1': input_scale"),
        ("input_scale", lambda s: 2 * s, "'d1': input scale and zero point must be"),
        ("output_zero_point", lambda _: 300, "'d1': output_zero_point"),
        ("granularity", lambda _: "block", "'d1': granularity"),
        ("activation_dtype", lambda _: "int4", "activation_dtype"),
        ("rounding", lambda _: "up", "rounding"),
        ("layers", lambda _: [], "needs at least one layer"),
        ("layers", lambda _: 3, "not a quantized network"),
        ("layers", lambda layers: layers + layers, "missing|not a quantized network"),
    ],
)
def test_damaged_files_are_refused(rng, tmp_path, key, value, message):
    network = make_network(draw_layers(rng, [5, 4, 3], ["tanh", "softmax"]))
    tensors, config = quantize(network, rng.normal(size=(20, 5))).network.to_tensors()
    config = json.loads(json.dumps(config))
    assert isinstance(QuantizedNetwork.from_tensors(tensors, config), QuantizedNetwork)
    _damage(key, value)(tensors, config)
    write_tensors(tmp_path / "q.safetensors", "quantized model", config, tensors)
    with pytest.raises(FileFormatError, match=message):
        QuantizedModel.from_file(TensorFile(tmp_path / "q.safetensors"))
