"""Quantized networks of all kinds of layers against plain NumPy: residual sums, tables, softmax, dynamic, mixed."""

import numpy as np
import pytest

from nbdense._compile import thread_pool
from nbdense.activations import ACTIVATIONS
from nbdense.backends.cpu import plan
from nbdense.files import FileFormatError, pack_nibbles, unpack_nibbles
from nbdense.models import load_model
from nbdense.quant import QuantizedModel, QuantizedNetwork
from nbdense.quant.kernels import dynamic
from nbdense.quant.kernels.rounding import CODES
from nbdense.quant.model.network import (
    LIMITS,
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedSoftmax,
    between,
    cuts,
)
from nbdense.quant.schemes.dynamic import DynamicDense
from nbdense.quant.schemes.weight_only import WeightOnlyDense
from tests.reference import naive, naive_integer
from tests.support.drawn_networks import draw_network

F32 = np.float32
DTYPES = ["int8", "uint8"]
ROUNDINGS = list(CODES)
FUNCTIONS = {"softmax": naive.softmax, **{name: pair[0] for name, pair in naive.ACTIVATIONS.items()}}


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def scale_of(value):
    return float(F32(value))


def draw_dense(rng, name, n_in, n_out, given, wanted, activation="linear", bits=8, **more):
    """Small weights, so that requantised values fill the range without saturating much."""
    most = 127 if bits == 8 else 7
    kernel = rng.integers(-most, most + 1, (n_in, n_out)).astype(np.int8)
    ratio = 30 / (most * 40 * np.sqrt(n_in))  # requantised values have a deviation of about 30
    scales = (rng.uniform(0.7, 1.3, n_out) * ratio * wanted[0] / given[0]).astype(F32)
    bias = rng.integers(-500, 500, n_out).astype(np.int32)
    return QuantizedDense(name, kernel, scales, bias, *given, *wanted, *wanted, activation, bits=bits, **more)


def run_dense(q, layer, dtype, rounding):
    acc = naive_integer.integer_dense(q, layer.input_zero_point, layer.kernel, layer.bias)
    return naive_integer.requantize(
        acc,
        F32(layer.input_scale),
        layer.kernel_scales,
        F32(layer.pre_scale),
        layer.pre_zero_point,
        dtype,
        rounding=rounding,
        activation=layer.activation,
    )


def formats(dtype, *pairs):
    """(scale, zero point counted from the middle) as the dtype has it."""
    middle = sum(LIMITS[dtype]) // 2 + 1
    return [(scale_of(scale), zero + middle) for scale, zero in pairs]


# -- integer layers --


@pytest.mark.kernels
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_sums(rng, dtype, rounding, activation):
    a, b, c, d = formats(dtype, (0.02, 5), (0.03, -7), (0.05, 3), (0.04, -128 if activation != "linear" else 9))
    first = draw_dense(rng, "d0", 9, 21, a, b)
    second = draw_dense(rng, "d1", 21, 21, b, c)
    alpha = ACTIVATIONS[activation].alpha
    total = QuantizedAdd("add", 21, (c[0], b[0]), (c[1], b[1]), *d, activation, alpha, inputs=(2, 1))
    network = QuantizedNetwork([first, second, total], dtype, rounding)
    x = rng.normal(size=(37, 9)).astype(F32)
    x[0, :3] = 1e9, -1e9, 0
    q1 = run_dense(naive_integer.quantize(x, F32(a[0]), a[1], dtype), first, dtype, rounding)
    q2 = run_dense(q1, second, dtype, rounding)
    expected = naive_integer.add(q2, c, q1, b, d, dtype, rounding=rounding, activation=activation)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(QuantizedModel(network).predict_integers(x), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_activation_softmax_and_flatten(rng, dtype):
    a, b, c = formats(dtype, (0.02, 5), (0.03, -7), (0.05, 3))
    low = LIMITS[dtype][0]
    dense = draw_dense(rng, "d", 6, 5, a, b, positions=4)
    table = rng.permutation(256).astype(np.int16) + low
    looked_up = QuantizedActivation("act", 5, *b, *c, table.astype(dtype), "tanh", positions=4)
    softmax = QuantizedSoftmax("sm", 5, *c, low, naive_integer.exponentials(c[0]), positions=4)
    flat = QuantizedFlatten("flat", 5, 1 / 256, low, positions=4)
    network = QuantizedNetwork([dense, looked_up, softmax, flat], dtype, input_shape=(2, 2, 6))
    x = rng.normal(size=(101, 2, 2, 6)).astype(F32)
    q = naive_integer.quantize(x, F32(a[0]), a[1], dtype).reshape(-1, 6)
    q = run_dense(q, dense, dtype, "onnx")
    q = naive_integer.softmax(naive_integer.look_up(looked_up.table, q), c[0], dtype)
    model = QuantizedModel(network)
    np.testing.assert_array_equal(model.predict_integers(x), q.reshape(101, 20))
    integers = run_dense(naive_integer.quantize(x, F32(a[0]), a[1], dtype).reshape(-1, 6), dense, dtype, "onnx")
    logits = naive_integer.dequantize(naive_integer.look_up(looked_up.table, integers), F32(c[0]), c[1])
    close = np.minimum(naive.softmax(logits), 255 / 256)  # the largest that the scale has
    np.testing.assert_allclose(model.predict(x).reshape(-1, 5), close, atol=0.5 / 256 + 1e-6)


def test_extremes_of_the_integer_softmax():
    low = -128
    for scale in (1e-3, 0.1, 1.0, 1e4):
        table = naive_integer.exponentials(scale_of(scale))
        softmax = QuantizedSoftmax("sm", 3, scale_of(scale), 0, low, table)
        ahead = QuantizedActivation(
            "id", 3, scale_of(scale), 0, scale_of(scale), 0, np.arange(-128, 128).astype(np.int8)
        )
        network = QuantizedNetwork([ahead, softmax])
        x = np.array([[-128, 127, 0], [127, 127, 127], [-128, -128, -128], [0, 1, 2]], F32) * F32(scale)
        q = np.clip(np.rint(x / F32(scale)), -128, 127).astype(np.int8)
        expected = naive_integer.softmax(q, scale_of(scale), "int8")
        np.testing.assert_array_equal(QuantizedModel(network).predict_integers(x), expected)


# -- float layers --


def draw_float(rng, name, n_in, n_out, activation="linear", **more):
    tensors = {"kernel": rng.normal(size=(n_in, n_out)) / np.sqrt(n_in), "bias": rng.normal(size=n_out)}
    return FloatLayer(name, "dense", n_in, {k: v.astype(F32) for k, v in tensors.items()}, activation, **more)


def run_float(x, layer):
    return FUNCTIONS[layer.activation](x @ layer.tensors["kernel"] + layer.tensors["bias"])


def test_layers_left_in_float(rng):
    """float -> integers -> float, with a sum of a float and an integer tensor."""
    a, b = formats("int8", (0.03, 5), (0.03, -7))
    first = draw_float(rng, "f0", 7, 12, "tanh")
    dense = draw_dense(rng, "d", 12, 12, a, b)
    norm = {"gamma": rng.uniform(0.5, 2, 12), "mean": rng.normal(size=12), "variance": rng.uniform(0.5, 2, 12)}
    batch = FloatLayer("bn", "batch_norm", 12, {k: v.astype(F32) for k, v in norm.items()}, alpha=1e-3)
    total = FloatLayer("add", "add", 12, inputs=(1, 3))
    last = draw_float(rng, "f1", 12, 4, "softmax")
    layers = [first, dense, batch, total, last]
    model = QuantizedModel(QuantizedNetwork(layers))
    x = rng.normal(size=(203, 7)).astype(F32)
    h = run_float(x.astype(np.float64), first)
    q = run_dense(naive_integer.quantize(h, F32(a[0]), a[1]), dense, "int8", "onnx")
    y = naive_integer.dequantize(q, F32(b[0]), b[1])
    y = (y - norm["mean"]) / np.sqrt(norm["variance"] + 1e-3) * norm["gamma"]
    expected = run_float(h + y, last)
    # tanh in float32 rounds an input of the integers to the other side now and then
    worst = np.abs(model.predict(x) - expected).max(axis=1)
    assert (worst < 1e-5).mean() > 0.95
    assert worst.max() < 0.05
    with pytest.raises(ValueError, match="the last layer, 'f1', computes in float; use predict"):
        model.predict_integers(x)
    gone = x.copy()
    gone[3, 2] = np.nan
    seen = model.predict(gone)
    assert np.isnan(seen[3]).all()
    np.testing.assert_array_equal(np.delete(seen, 3, 0), np.delete(model.predict(x), 3, 0))


def test_rows_of_the_engine_that_read_the_input(rng):
    for positions in (1, 3):
        shape = (5,) if positions == 1 else (positions, 5)
        norm = FloatLayer(
            "ln", "layer_norm", 5, {"gamma": rng.uniform(0.5, 2, 5).astype(F32)}, 1e-3 * 0, positions=positions
        )
        norm = FloatLayer("ln", "layer_norm", 5, dict(norm.tensors), alpha=1e-3, positions=positions)
        total = FloatLayer("add", "add", 5, inputs=(0, 1), positions=positions)
        flat = FloatLayer("flat", "flatten", 5, positions=positions)
        dense = draw_float(rng, "d", 5 * positions, 3)
        model = QuantizedModel(QuantizedNetwork([norm, total, flat, dense], input_shape=shape))
        x = rng.normal(size=(150, *shape)).astype(F32)
        z = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-3)
        expected = run_float((x + z * norm.tensors["gamma"]).reshape(150, -1), dense)
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block_size", [0, 32, 7])
def test_weights_alone(rng, bits, block_size, zero_points):
    n_in, most = 45, {8: 127, 4: 7}[bits]
    blocks = -(-n_in // (block_size or n_in))
    kernel = rng.integers(-most - 1, most + 1, (n_in, 6)).astype(np.int8)
    zeros = rng.integers(-most - 1, most + 1, (blocks, 6)).astype(np.int8) * zero_points
    scales = rng.uniform(0.01, 0.02, (blocks, 6)).astype(F32)
    bias = rng.normal(size=6).astype(F32)
    given = {"kernel_zero_points": zeros} if zero_points else {}
    layer = WeightOnlyDense("w", kernel, scales, bias, block_size, bits, "relu", **given)
    x = rng.normal(size=(33, n_in)).astype(F32)
    of = [k // (block_size or n_in) for k in range(n_in)]
    weights = np.array(
        [[(int(kernel[k, j]) - int(zeros[of[k], j])) * scales[of[k], j] for j in range(6)] for k in range(n_in)]
    )
    expected = np.maximum(x @ weights + bias, 0)
    np.testing.assert_allclose(QuantizedModel(QuantizedNetwork([layer])).predict(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "softmax"])
def test_dynamic_layers(rng, activation, positions, zero_points):
    n_in, widths = 37, (150, 4)
    layers, n = [], n_in
    for i, width in enumerate(widths):
        kernel = rng.integers(-127, 128, (n, width)).astype(np.int8)
        scales = rng.uniform(0.001, 0.002, width).astype(F32)
        bias = rng.normal(size=width).astype(F32) if i == 0 else None
        zeros = rng.integers(-128, 128, width).astype(np.int8) if zero_points else None
        more = {"positions": positions, "kernel_zero_points": zeros}
        layers.append(DynamicDense(f"d{i}", kernel, scales, bias, activation, **more))
        n = width
    model = QuantizedModel(QuantizedNetwork(layers))
    shape = (n_in,) if positions == 1 else (positions, n_in)
    for rows in (1, 13, 500):
        x = (rng.normal(size=(rows, *shape)) * 3).astype(F32)
        y = x
        for layer in layers:
            scale, zero_point = naive_integer.dynamic_parameters(y)
            q = naive_integer.quantize(y, scale, zero_point, "uint8").reshape(-1, layer.n_in)
            weights = layer.kernel.astype(np.int64) - (layer.kernel_zero_points if zero_points else 0)
            acc = naive_integer.integer_dense(q, zero_point, weights, None)
            z = acc.astype(F32) * (scale * layer.kernel_scales)
            z = z if layer.bias is None else z + layer.bias
            y = FUNCTIONS[activation](z).astype(F32)
        # the second layer's scale may differ in its last bit
        np.testing.assert_allclose(model.predict(x).reshape(y.shape), y, rtol=1e-4, atol=2e-3 * np.abs(y).max())
    halves = np.concatenate([model.predict(x[:250]), model.predict(x[250:])])
    np.testing.assert_array_equal(model.predict(x, batch_size=250), halves)
    x[4] = np.nan
    x[5, ..., 0] = np.inf
    seen = model.predict(x)
    assert np.isnan(seen[4]).all()
    assert np.isfinite(np.delete(seen, 4, 0)).all()


def draw_dynamic(rng, name, n_in, n_out):
    kernel = rng.integers(-127, 128, (n_in, n_out)).astype(np.int8)
    return DynamicDense(name, kernel, np.full(n_out, 0.001, F32))


def test_dynamic_layers_on_two_threads(rng):
    layers = [draw_dynamic(rng, "d0", 200, 300), draw_float(rng, "f", 300, 3)]
    import nbdense

    model, x = QuantizedModel(QuantizedNetwork(layers)), rng.normal(size=(3000, 200)).astype(F32)
    outputs = []
    for threads in (1, 2):
        nbdense.set_num_threads(threads)
        outputs.append(model.predict(x))
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("threads", [1, 2])
def test_long_calls_of_dynamic_layers_are_parted(rng, threads, monkeypatch):
    """Ctrl-C is heard between the parts, which change no bit: a layer's scale is still that of the whole call."""
    layers = [draw_float(rng, "f", 20, 20), draw_dynamic(rng, "d0", 20, 30), draw_float(rng, "g", 30, 7)]
    layers.append(draw_dynamic(rng, "d1", 7, 4))
    model, x = QuantizedModel(QuantizedNetwork(layers)), rng.normal(size=(501, 20)).astype(F32)
    x[3], x[400] = np.nan, 50.0
    whole, parts = model.predict(x), []
    monkeypatch.setattr(plan, "SIGNAL_WORK", 3e5)
    monkeypatch.setattr(thread_pool, "_chosen", threads)
    monkeypatch.setattr(thread_pool, "LEAST_PARALLEL_FLOPS", 1.0)
    monkeypatch.setattr(thread_pool, "PARALLEL_FLOPS", dict.fromkeys(thread_pool.PARALLEL_FLOPS, 1.0))

    entry = dynamic.predict_dynamic
    monkeypatch.setattr(dynamic, "predict_dynamic", lambda *given: parts.append(given[5]) or entry(*given))
    np.testing.assert_array_equal(model.predict(x), whole)
    passes = 2 * len(layers) + 1
    assert {end - first for first, end, *_ in parts} == {1}, "one pass a call"
    assert [(first, begin) for first, _, begin, _ in parts if begin == 0] == [(p, 0) for p in range(passes)]
    assert max((end - begin) * 2 * 20 * 30 for first, _, begin, end in parts if first == 3) <= plan.SIGNAL_WORK


# -- files and checks --


@pytest.mark.parametrize("seed", range(12))
def test_a_network_may_be_cut_where_everything_goes_through_one_tensor(seed, rng):
    network = draw_network(seed)
    read = [network.inputs_of(i) for i in range(len(network.layers))]
    ends = cuts(read)
    assert ends == {
        t for t in range(1, len(read) + 1) if all(source >= t for sources in read[t:] for source in sources)
    }

    def run(start, tensor, x):
        shape = network.input_shape if start == 0 else ()
        part = QuantizedNetwork(
            between(network.layers, start, tensor), network.activation_dtype, network.rounding, input_shape=shape
        )
        return QuantizedModel(part).predict(x.reshape(-1, *part.input_shape))

    x = rng.normal(size=(9, *network.input_shape)).astype(F32)
    for start in ends:
        before = run(0, start, x)
        for tensor in range(start + 1, len(read) + 1):
            np.testing.assert_array_equal(run(start, tensor, before), run(0, tensor, x))


@pytest.mark.parametrize("seed", range(12))
def test_peak_of_activations_is_that_of_the_layer_with_most_alive(seed):
    network = draw_network(seed)
    read = [network.inputs_of(i) for i in range(len(network.layers))]
    alive = [{i + 1, *(t for t in range(i + 1) if any(t in sources for sources in read[i:]))} for i in range(len(read))]
    sizes = [positions * n for positions, n in network.tensors]  # integers all
    assert network.peak_activation_bytes() == max(sum(sizes[t] for t in tensors) for tensors in alive)


def test_all_kinds_survive_a_file(rng, tmp_path):
    a, b, c = formats("int8", (0.02, 5), (0.03, -7), (0.05, 3))
    integer = QuantizedNetwork(
        [
            draw_dense(rng, "d", 7, 5, a, b, bits=4, positions=2),
            QuantizedAdd("add", 5, (b[0], b[0]), (b[1], b[1]), *c, "relu6", 4.0, inputs=(1, 1), positions=2),
            QuantizedActivation("act", 5, *c, *a, rng.permutation(256).astype(np.uint8).view(np.int8), positions=2),
            QuantizedFlatten("flat", 5, *a, positions=2),
            QuantizedSoftmax("sm", 10, *a, -128, naive_integer.exponentials(a[0])),
        ],
        report={"text": "seen"},
    )
    float_side = QuantizedNetwork(
        [
            WeightOnlyDense(
                "w",
                rng.integers(-8, 8, (9, 5)).astype(np.int8),
                np.ones((3, 5), F32),
                None,
                4,
                4,
                "elu",
                0.5,
                kernel_zero_points=rng.integers(-8, 8, (3, 5)).astype(np.int8),
            ),
            DynamicDense(
                "d",
                rng.integers(-9, 9, (5, 5)).astype(np.int8),
                np.ones(5, F32),
                np.ones(5, F32),
                kernel_zero_points=np.arange(5).astype(np.int8),
            ),
            FloatLayer("add", "add", 5, inputs=(1, 2)),
            FloatLayer("act", "activation", 5, activation="thresholded_relu", alpha=(0.5, 0.25, np.inf)),
        ]
    )
    for network in (integer, float_side):
        model = QuantizedModel(network)
        model.save(tmp_path / "q.nbd")
        again = load_model(tmp_path / "q.nbd")
        x = rng.normal(size=(6, *network.input_shape)).astype(F32)
        np.testing.assert_array_equal(model.predict(x), again.predict(x))
        assert again.network.report == network.report
        assert again.network.to_tensors()[1] == network.to_tensors()[1]
        assert again.network.input_shape == network.input_shape
        again.save(tmp_path / "r.nbd")
        assert (tmp_path / "q.nbd").read_bytes() == (tmp_path / "r.nbd").read_bytes()
    assert integer.to_tensors()[0]["0/kernel_int4"].nbytes == 4 * 5


def test_a_file_with_a_layer_of_another_kind_is_refused(rng, tmp_path):
    from nbdense.files import TensorFile, write_tensors

    a, b = formats("int8", (0.02, 5), (0.03, -7))
    tensors, config = QuantizedNetwork([draw_dense(rng, "d", 7, 5, a, b)]).to_tensors()
    config["layers"][0]["kind"] = "conv"
    write_tensors(tmp_path / "q.nbd", "quantized model", config, tensors)
    with pytest.raises(FileFormatError, match="unknown kind of layer 'conv'"):
        QuantizedModel.from_file(TensorFile(tmp_path / "q.nbd"))


@pytest.mark.parametrize("n_in", [1, 2, 7])
def test_nibbles(rng, n_in):
    kernel = rng.integers(-8, 8, (n_in, 5)).astype(np.int8)
    packed = pack_nibbles(kernel)
    assert packed.shape == (-(-n_in // 2), 5)
    np.testing.assert_array_equal(unpack_nibbles(packed, n_in), kernel)
    with pytest.raises(ValueError, match="kernel_int4 must be uint8"):
        unpack_nibbles(packed, n_in + 2)


def test_what_does_not_fit_is_refused(rng):
    a, b = formats("int8", (0.02, 5), (0.03, -7))
    dense = draw_dense(rng, "d", 7, 5, a, b)
    ones, nine = np.ones((1, 2), F32), np.full((1, 2), -9, np.int8)

    def total(n, first, second, inputs, activation="linear"):
        return [
            dense,
            QuantizedAdd("add", n, (first[0], second[0]), (first[1], second[1]), *b, activation, inputs=inputs),
        ]

    cases = [
        (total(5, b, a, (1, 1)), r"'add': input scale and zero point must be \(0.0299.* of 'd', got \(0.0199"),
        (total(5, b, b, (1, 3)), r"'add': inputs must be 2 numbers from 0 to 1, got \(1, 3\)"),
        (total(7, b, a, (1, 0)), "'add' has 7 inputs, but 'd' has 5 outputs"),
        (total(5, b, b, (1, 1), "tanh"), "'tanh'"),
        ([draw_dense(rng, "d", 7, 5, a, b, bits=3)], "bits must be one of 8, 4"),
        (
            [WeightOnlyDense("w", np.full((2, 2), 8, np.int8), ones, bits=4)],
            r"a weight must lie in \[-8, 7\], 4 bits, got 8",
        ),
        (
            [WeightOnlyDense("w", np.ones((2, 2), np.int8), ones, bits=4, kernel_zero_points=nine)],
            r"zero point must lie in \[-8, 7\], 4 bits, got -9",
        ),
        ([WeightOnlyDense("w", np.ones((2, 2), np.int8), ones, kernel_zero_points=nine[0])], r"must be int8 \(1, 2\)"),
        (
            [DynamicDense("w", nine, ones[0], granularity="per_tensor", kernel_zero_points=np.array([1, 2], np.int8))],
            "equal",
        ),
        ([WeightOnlyDense("w", np.ones((9, 2), np.int8), ones, block_size=4)], r"kernel_scales must be .*\(3, 2\)"),
        ([WeightOnlyDense("w", np.ones((2, 2), np.int8), 0 * ones)], "positive and finite"),
        ([DynamicDense("w", np.full((70_000, 1), 127, np.int8), np.ones(1, F32))], "can leave int32"),
        ([FloatLayer("f", "conv", 3)], "what must be one of"),
        ([FloatLayer("f", "dense", 3, {"kernel": np.ones((4, 2), F32)})], r"kernel must be float32 \(3, 2\)"),
        ([FloatLayer("f", "batch_norm", 3)], "a batch_norm has the tensors"),
        ([FloatLayer("f", "layer_norm", 3, alpha=(1.0, 2.0))], "alpha of a layer_norm must be one number, its epsilon"),
        ([dense, DynamicDense("w", np.ones((5, 2), np.int8), ones[0])], "cannot stand in one network"),
    ]
    for layers, message in cases:
        with pytest.raises(ValueError, match=message):
            QuantizedNetwork(layers)
