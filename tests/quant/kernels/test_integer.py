"""The integer program against tests/reference/naive_integer.py, to the last bit."""

import numpy as np
import pytest

from nbdense._compile.policy import JIT
from nbdense.activations import ACTIVATIONS
from nbdense.quant import QuantizedModel, QuantizedNetwork
from nbdense.quant.kernels import integer
from nbdense.quant.kernels.integer import CHUNK, TILE_COLUMNS, TILE_ROWS, quantize_rows
from nbdense.quant.kernels.rounding import CODES, quotient
from nbdense.quant.model.network import LIMITS, QuantizedDense
from nbdense.runtime.rounding import fixed_point_multiplier
from tests.reference import naive, naive_integer
from tests.support.compiled import compiled

DTYPES = ["int8", "uint8"]
ROUNDINGS = list(CODES)
TABLES = {name: naive.ACTIVATIONS[name][0] for name, row in ACTIVATIONS.items() if not row.is_clamp and not row.rowwise}
EXTREMES = [np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-45, 0.0, -0.0, 0.5, -0.5, 1.5, 2.5]


@compiled
def quantize(x, scale, zero_point, out):
    quantize_rows(x, 0, x.size, 1, x.size, scale, zero_point, out, 1, x.size, out[:0])


@compiled
def divide(x, divisors, out):
    for i in range(x.size):
        out[i] = quotient(x[i], divisors[i], np.float32(1.0) / divisors[i])


def draw_network(
    rng, widths, activations, dtype="int8", rounding="onnx", per_channel=True, full_range=False, zero_points=False
):
    """Layers of drawn integers and scales; with full_range, weights and biases that fill their types."""
    low, high = LIMITS[dtype]
    layers = []
    scale, zero_point = float(np.float32(rng.uniform(0.005, 0.05))), int(rng.integers(low, high + 1))
    for i, (n_in, n_out, name) in enumerate(zip(widths[:-1], widths[1:], activations, strict=True)):
        kernel = rng.integers(-127, 128, (n_in, n_out)).astype(np.int8)
        bias = rng.integers(-5000, 5000, n_out).astype(np.int32)
        if full_range:
            kernel = np.where(rng.random((n_in, n_out)) < 0.5, 127, -128).astype(np.int8)
            bias = np.where(rng.random(n_out) < 0.5, 2**31 - 1, -(2**31)) // 2
            bias = bias.astype(np.int32)
        scales = rng.uniform(1e-3, 2e-2, n_out).astype(np.float32)
        if not per_channel:
            scales[:] = scales[0]
        size = scale * scales.mean() * (5e8 if full_range else 80 * np.sqrt(n_in) * 60)
        pre = float(np.float32(size / 128)), low if name == "relu" else int(rng.integers(low, high + 1))
        output, table = pre, None
        if name in TABLES:
            output = float(np.float32(1 / 200)), int(rng.integers(low, high + 1))
            table = naive_integer.activation_table(
                TABLES[name], np.float32(pre[0]), pre[1], np.float32(output[0]), output[1], dtype
            )
        granularity = "per_channel" if per_channel else "per_tensor"
        zeros = rng.integers(-128, 128, n_out if per_channel else 1).astype(np.int8) * np.ones(n_out, np.int8)
        layer = QuantizedDense(
            f"d{i}",
            kernel,
            scales,
            bias,
            scale,
            zero_point,
            *output,
            *pre,
            name,
            table,
            granularity,
            kernel_zero_points=zeros if zero_points else None,
        )
        layers.append(layer)
        scale, zero_point = output
    return QuantizedNetwork(layers, dtype, rounding)


def reference(network, x):
    """The same network's last integers by the naive reference."""
    layers = [
        naive_integer.IntegerDense(
            layer.kernel if layer.kernel_zero_points is None else layer.kernel * np.int64(1) - layer.kernel_zero_points,
            layer.kernel_scales,
            layer.bias,
            np.float32(layer.input_scale),
            layer.input_zero_point,
            np.float32(layer.pre_scale),
            layer.pre_zero_point,
            layer.activation if layer.table is None else "linear",
            layer.table,
        )
        for layer in network.layers
    ]
    return naive_integer.integer_mlp_forward(x, layers, network.activation_dtype, network.rounding)


def assert_same(network, x):
    got = QuantizedModel(network).predict_integers(x)
    expected = reference(network, x)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def draw_rows(rng, count, network):
    first = network.layers[0]
    low, high = (first.input_scale * (q - first.input_zero_point) for q in LIMITS[network.activation_dtype])
    return rng.uniform(low - 0.2, high + 0.2, (count, network.n_in)).astype(np.float32)


@pytest.mark.kernels
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activations", [["relu", "linear"], ["sigmoid", "tanh"]])
def test_tiny_networks(dtype, rounding, activations):
    rng = np.random.default_rng(1)
    network = draw_network(rng, [5, 3, 2], activations, dtype, rounding)
    x = draw_rows(rng, 3, network)
    x[0, :4] = [np.inf, -np.inf, 1e30, -0.0]
    assert_same(network, x)


@pytest.mark.kernels
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_tiny_network_of_extremes(rounding):
    rng = np.random.default_rng(2)
    network = draw_network(rng, [2, 3], ["linear"], "int8", rounding, full_range=True)
    assert_same(network, np.array([[1e9, -1e9], [-1e9, 1e9], [1e9, 1e9], [-1e9, -1e9]], np.float32))


@pytest.mark.kernels
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_zero_points_of_weights(per_channel, dtype, rounding):
    rng = np.random.default_rng([8, per_channel, len(dtype), len(rounding)])
    widths = [5, TILE_COLUMNS + 3, 9, 2] if JIT else [5, 4, 2]
    names = ["relu", "tanh", "linear"][: len(widths) - 1]
    for full_range in (False, True):
        network = draw_network(rng, widths, names, dtype, rounding, per_channel, full_range, zero_points=True)
        assert_same(network, draw_rows(rng, TILE_ROWS + 2 if JIT else 3, network))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", ["relu", "linear", "sigmoid", "tanh"])
def test_drawn_shapes(name, per_channel, dtype, rounding):
    rng = np.random.default_rng([3, len(name), per_channel, len(dtype), len(rounding)])
    for rows, *widths in naive.draw_shapes(rng, 5, 4):
        network = draw_network(rng, widths, [name, "linear"], dtype, rounding, per_channel)
        assert_same(network, draw_rows(rng, rows, network))


@pytest.mark.parametrize("n_out", [TILE_COLUMNS - 1, TILE_COLUMNS, TILE_COLUMNS + 1, 2 * TILE_COLUMNS + 3])
@pytest.mark.parametrize("rows", [TILE_ROWS - 1, TILE_ROWS + 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_around_the_tile(rows, n_out):
    rng = np.random.default_rng([rows, n_out])
    network = draw_network(rng, [7, n_out, 5], ["relu", "linear"])
    assert_same(network, draw_rows(rng, rows, network))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_full_range_weights_biases_and_inputs(dtype, rounding):
    rng = np.random.default_rng(4)
    network = draw_network(rng, [1009, 37, 11], ["linear", "linear"], dtype, rounding, full_range=True)
    x = np.where(rng.random((9, 1009)) < 0.5, 1e9, -1e9).astype(np.float32)
    x[0], x[1] = 1e9, -1e9
    assert_same(network, x)


@pytest.mark.parametrize(
    ("weights", "zeros", "n_in"),
    [((127, -127), None, 66_311), ((127, -128), None, 65_793), ((127, -128), (-128, 127), 33_025)],
)
def test_the_widest_layer_that_fits_int32(weights, zeros, n_in):
    def network(n_in):
        kernel = np.tile(np.array(weights, np.int8), (n_in, 1))
        form = float(np.float32(2.0**24)), 0
        scales, bias = np.ones(2, np.float32), np.zeros(2, np.int32)
        zero_points = None if zeros is None else np.array(zeros, np.int8)
        layer = QuantizedDense("wide", kernel, scales, bias, 1.0, -128, *form, *form, kernel_zero_points=zero_points)
        return QuantizedNetwork([layer])

    x = np.full((2, n_in), 255, np.float32)
    x[1] = 0
    assert_same(network(n_in), x)
    assert QuantizedModel(network(n_in)).predict_integers(x).tolist() == [[127, -128], [0, 0]]
    with pytest.raises(ValueError, match=f"its accumulator can leave int32 .* more than {n_in:,} inputs can"):
        network(n_in + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_inputs(dtype):
    rng = np.random.default_rng(5)
    network = draw_network(rng, [len(EXTREMES), 7], ["linear"], dtype)
    x = np.stack([np.roll(EXTREMES, i) for i in range(4)]).astype(np.float32)
    assert_same(network, x)


def test_halves_round_to_even():
    """An identity layer of scale 1: the integers are those of the inputs' rounding."""
    layer = QuantizedDense("d", np.ones((1, 1), np.int8), np.ones(1, np.float32), np.zeros(1, np.int32), *(1.0, 0) * 3)
    x = np.array([[0.5], [1.5], [2.5], [-0.5], [-1.5], [126.5], [127.5], [-128.5], [-300]], np.float32)
    expected = [0, 2, 2, 0, -2, 126, 127, -128, -128]
    assert QuantizedModel(QuantizedNetwork([layer])).predict_integers(x).ravel().tolist() == expected


def around_ties(scale, zero_point, dtype):
    """Inputs at the floats on either side of where the byte changes, and beyond the range."""
    low, high = LIMITS[dtype]
    ties = (np.arange(low - 2, high + 2) + 0.5 - zero_point) * float(scale)
    x = ties.astype(np.float32)
    up, down = (np.nextafter(x, np.float32(end)) for end in (np.inf, -np.inf))
    return np.concatenate([x, up, down, np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(-np.inf))])


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 1e-44, 1e-30, 1e-28, 3e36, 2e37])
def test_quantizing_divides(size, dtype):
    """The product with the reciprocal would round otherwise at some ties, and outside some sizes it means nothing."""
    rng = np.random.default_rng(14)
    low, high = LIMITS[dtype]
    with np.errstate(over="ignore"):
        for scale in np.float32(size) * rng.uniform(0.3, 3, 20 if JIT else 2).astype(np.float32):
            zero_point = int(rng.integers(low, high + 1))
            x = around_ties(scale, zero_point, dtype)
            got = np.zeros(x.size + 2, np.uint8)
            quantize(x, scale, zero_point - low, got)
            expected = naive_integer.quantize(x, scale, zero_point, dtype).astype(np.int64) - low
            np.testing.assert_array_equal(got[1:-1], expected)


@pytest.mark.parametrize("name", ["inf", "nan"])
def test_quotient_equals_its_twin(name):
    """Ordinary numbers' do, to the bit; where something is not finite, the quotient is not either."""
    rng = np.random.default_rng(15)
    x, divisors = rng.standard_normal((2, 4096)).astype(np.float32)
    divisors = np.abs(divisors) + np.float32(1e-3)
    got = np.empty_like(x)
    divide(x, divisors, got)
    np.testing.assert_array_equal(got, np.array([quotient.twin(*pair, None) for pair in zip(x, divisors, strict=True)]))
    divide(np.full_like(x, float(name)), divisors, got)
    assert not np.isfinite(got).any()


def test_threads_and_batches_change_nothing():
    rng = np.random.default_rng(6)
    network = draw_network(rng, [64, 130, 10], ["relu", "linear"])
    x = draw_rows(rng, 700, network)
    model = QuantizedModel(network)
    whole = model.predict_integers(x)
    np.testing.assert_array_equal(whole, np.concatenate([model.predict_integers(row[None]) for row in x]))
    np.testing.assert_array_equal(whole, model.predict_integers(x, batch_size=97))
    np.testing.assert_array_equal(whole, reference(network, x))


@pytest.mark.kernels
@pytest.mark.parametrize("n_in, column", [(5, 1), (37, 0), (37, 36)])
def test_not_a_number_stays_in_its_row(n_in, column):
    rng = np.random.default_rng(7)
    network = draw_network(rng, [n_in, 3], ["linear"])
    x = draw_rows(rng, 4, network)
    clean = QuantizedModel(network).predict(x)
    x[2, column] = np.nan
    got = QuantizedModel(network).predict(x)
    assert np.isnan(got[2]).all()
    np.testing.assert_array_equal(np.delete(got, 2, 0), np.delete(clean, 2, 0))
    zero = x.copy()
    zero[2, column] = 0
    model = QuantizedModel(network)
    np.testing.assert_array_equal(model.predict_integers(x), model.predict_integers(zero))


@pytest.mark.kernels
def test_softmax_of_the_dequantized_outputs():
    rng = np.random.default_rng(8)
    network = draw_network(rng, [4, 3], ["linear"])
    x = draw_rows(rng, 3, network)
    last = network.layers[-1]
    logits = naive_integer.dequantize(reference(network, x), np.float32(last.output_scale), last.output_zero_point)
    np.testing.assert_array_equal(QuantizedModel(network).predict(x), logits)
    ends = QuantizedNetwork(network.layers, "int8", "onnx", "softmax")
    np.testing.assert_allclose(QuantizedModel(ends).predict(x), naive.softmax(logits.astype(np.float64)), atol=1e-6)


def test_fixed_point_multipliers():
    rng = np.random.default_rng(9)
    for real in [0.0, 1.0, 0.5, 2.0**-33, 2.0**-32, 2.0**29, 1 - 2.0**-53, *np.exp(rng.uniform(-25, 18, 300)).tolist()]:
        assert fixed_point_multiplier(real) == naive_integer.quantize_multiplier(real)
    with pytest.raises(ValueError, match="too large"):
        fixed_point_multiplier(2.0**30)


@pytest.mark.parametrize("roundings", [("onnx", "onnx"), ("tflite", "ruy")], ids=["plain", "general"])
def test_new_networks_compile_nothing(roundings):
    rng = np.random.default_rng(10)
    before = None
    for widths, names, dtype, rounding in [
        ([3, 4], ["linear"], "int8", roundings[0]),
        ([30, 40, 50, 2], ["relu", "tanh", "sigmoid"], "uint8", roundings[1]),
    ]:
        network = draw_network(rng, widths, names, dtype, rounding)
        rows = draw_rows(rng, 5, network)
        read_only = rows.copy()
        read_only.flags.writeable = False
        for x in (rows, read_only, rows.astype(np.float64)[::-1], rows.astype(">f4"), rows.astype(np.uint8)):
            QuantizedModel(network).predict(x)
            QuantizedModel(network).predict_integers(np.asfortranarray(x))
        signatures = len(integer.predict.signatures)
        before = before or signatures
        assert signatures == before


def test_the_general_program_gives_what_the_plain_one_does(monkeypatch):
    """Networks of products alone have a program without the other rows and roundings in it."""
    rng = np.random.default_rng(11)
    network = draw_network(rng, [30, 40, 5], ["tanh", "linear"], "int8", "onnx")
    rows, is_plain, told = draw_rows(rng, 7, network), integer.is_plain, []
    monkeypatch.setattr(integer, "is_plain", lambda program: told.append(is_plain(program)))
    general = QuantizedModel(network).predict_integers(rows)
    QuantizedModel(draw_network(rng, [3, 4], ["linear"], "int8", "tflite")).predict_integers(rows[:, :3])
    assert told == [True, False]
    monkeypatch.undo()
    np.testing.assert_array_equal(QuantizedModel(network).predict_integers(rows), general)
    assert np.unique(general).size > 3


def test_tables_cover_activations():
    """All but clamps and softmax need a table here, so that a new activation is tried."""
    assert {a.name for a in ACTIVATIONS.values() if not (a.is_clamp or a.rowwise)} == set(TABLES)
