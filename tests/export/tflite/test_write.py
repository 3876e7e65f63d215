"""TFLite files in LiteRT: floats closely, integers all of them, in the kernels that round as the network does."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

import nbdense as nb
from nbdense import activations
from nbdense.activations import ACTIVATIONS
from nbdense.export import to_tflite, verify_tflite
from nbdense.export.tflite import api
from nbdense.export.tflite.graph import OPERATORS
from nbdense.export.tflite.schema import KINDS
from nbdense.export.tflite.verification import KERNELS, run
from nbdense.files import FileFormatError
from nbdense.quant import QuantizedModel, QuantizedNetwork, quantize
from nbdense.quant.layers.activations import exponentials
from nbdense.quant.model.network import QuantizedActivation, QuantizedAdd, QuantizedFlatten, QuantizedSoftmax
from nbdense.runtime.rounding import ROUNDINGS
from tests.support.drawn_networks import FUNCTIONS, Drawn, draw_network
from tests.support.stacks import MORE_STACKS, STACKS, data, made, model_of, randomise

F32 = np.float32
EXACT = ["onnx", "tflite", "ruy"]  # roundings that kernels of LiteRT have
ALL_KERNELS = ["default", "reference", "optimised"]
NOT_IN_REFERENCE = {"elu", "selu", "celu"}  # it has no kernel for ELU


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# -- float models --


@pytest.mark.parametrize("name", [*STACKS, *MORE_STACKS])
def test_stacks(name):
    model = model_of(name)
    content = to_tflite(model, verify=False)
    for rows in (1, 50):
        x = data(model, rows)
        np.testing.assert_allclose(run(content, x), model.predict(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    model = randomise(made([nb.Dense(7, name), nb.Activation(name), nb.Dense(3, name)], (5,), "float32"))
    model.network.params *= F32(0.1)  # exponentials of exponentials stay numbers
    content, x = to_tflite(model, verify=False), data(model, 100)
    for kernels in ALL_KERNELS:
        if kernels != "reference" or name not in NOT_IN_REFERENCE:
            computed, expected = run(content, x, kernels), model.predict(x)
            np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5 * max(np.abs(expected).max(), 0.01))


def test_options_of_activations():
    layers = [nb.Dense(9, activations.hard_tanh.with_alpha((-0.5, None))), nb.ReLU(3.0, 0.1, 0.2), nb.ReLU(0.7)]
    layers += [nb.Dense(9), nb.LeakyReLU(0.4), nb.ELU(0.7), nb.Dense(9), nb.ReLU(6.0), nb.Softmax()]
    layers += [nb.Dense(9, name) for name in (activations.celu.with_alpha(0.6), activations.soft_shrink)]
    model = randomise(made(layers, (5,), "float32"))
    x = data(model, 50)
    np.testing.assert_allclose(run(to_tflite(model), x), model.predict(x), rtol=1e-4, atol=1e-5)


def test_activations_are_fused():
    model = made([nb.Dense(4, "relu"), nb.Residual([nb.Dense(4)]), nb.ReLU(6.0), nb.Dense(3, "tanh")], (5,), "float32")
    content = to_tflite(model)
    assert len(operators_of(content)) == 5
    assert operators_of(content) == ["FULLY_CONNECTED", "FULLY_CONNECTED", "ADD", "FULLY_CONNECTED", "TANH"]


def operators_of(content):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    session = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    return [entry["op_name"] for entry in session._get_ops_details()]


def test_custom_activations():
    sine = activations.custom("sine", lambda z: math.sin(z), lambda z: math.cos(z))
    model = nb.Sequential([nb.Input((3,)), nb.Dense(4, sine), nb.Dense(2)])
    with pytest.raises(ValueError, match="'sine' is one of your own: it has no ONNX form"):
        to_tflite(model)
    x = np.random.default_rng(0).normal(size=(50, 3))
    to_tflite(quantize(model, x))

    def write(graph, source, target):
        graph.node("Mul", [source, graph.node("Tanh", [source], f"{target}_gate")], target)

    known = activations.custom(
        "known", lambda z: z * math.tanh(z), lambda z: math.tanh(z) + z / math.cosh(z) ** 2, onnx=write
    )
    to_tflite(nb.Sequential([nb.Input((3,)), nb.Dense(4, known), nb.Dense(2)]))


# -- integers --


def integers_of(network, rows):
    """A file with integers at both ends, those that nbdense makes of drawn inputs, and those that it predicts."""
    model = QuantizedModel(network)
    content = to_tflite(model, inference_input_type="int8", inference_output_type="int8", verify=False)
    scale, zero_point = next(
        form
        for i, layer in enumerate(network.layers)
        for tensor, form in zip(network.inputs_of(i), layer.input_formats, strict=True)
        if tensor == 0
    )
    x = np.random.default_rng(3).normal(0, 1.5, (rows, *network.input_shape)).astype(F32)
    integers = np.clip(np.rint(x / F32(scale)) + zero_point, -128, 127).astype(np.int8)
    return content, integers, model.predict_integers(x)


def assert_integers_are_equal(network, kernels=None, rows=1024):
    """All of them; kernels are those of the rounding."""
    content, integers, expected = integers_of(network, rows)
    computed = run(content, integers, kernels or KERNELS[network.rounding])
    assert computed.dtype == np.int8
    np.testing.assert_array_equal(computed.reshape(expected.shape), expected)


@pytest.mark.parametrize("rounding", EXACT)
@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_drawn_networks(seed, rounding):
    """Tables, sums, flattens and positions; scales for each column."""
    network = draw_network(seed)
    assert network.activation_dtype == "int8"
    assert_integers_are_equal(dataclasses.replace(network, rounding=rounding, final_activation="linear"))


@pytest.mark.parametrize(("rounding", "kernels"), [("tflite", "default"), ("onnx", "reference")])
def test_kernels_of_another_rounding(rounding, kernels):
    """Those of 24 bits and those of 31 part where a tie is nearer than that: hardly ever."""
    d, differing, count = Drawn(16), 0, 0
    for n_in, n_out in [(17, 5), (64, 33), (300, 31), (128, 128)]:
        network = QuantizedNetwork([d.dense(n_in, n_out, d.format(0.02), d.format(0.03))], rounding=rounding)
        content, x, expected = integers_of(network, 1024)
        away = np.abs(run(content, x, kernels).astype(int) - expected)
        assert away.max() <= 1
        differing, count = differing + np.count_nonzero(away), count + away.size
    assert differing <= 1e-4 * count


@pytest.mark.parametrize("rounding", EXACT)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_widths(granularity, rounding):
    d = Drawn(11)
    for n_in, n_out in [(1, 1), (1, 7), (7, 1), (17, 5), (64, 33), (300, 31), (128, 128)]:
        a, b = d.format(0.02), d.format(0.03)
        for activation, alpha in (("linear", 0.0), ("relu", 0.0), ("relu6", 6.0), ("relu6", 1.7)):
            layer = d.dense(n_in, n_out, a, b, activation, alpha=alpha, granularity=granularity)
            assert_integers_are_equal(QuantizedNetwork([layer], rounding=rounding))


@pytest.mark.parametrize("rounding", EXACT)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_deep_networks(granularity, rounding):
    """The anomaly detector of MLPerf Tiny, drawn: 640-128x4-8-128x4-640."""
    d = Drawn(12)
    widths, form, layers = [640, *[128] * 4, 8, *[128] * 4, 640], d.format(0.02), []
    for n_in, n_out in itertools.pairwise(widths):
        other = d.format(0.03, -128)
        layers.append(d.dense(n_in, n_out, form, other, "relu", granularity=granularity))
        form = other
    assert_integers_are_equal(QuantizedNetwork(layers, rounding=rounding))


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("name", [*FUNCTIONS, "hard_tanh"])
def test_tables_are_exact_everywhere(name, kernels):
    d = Drawn(5)
    a, b = d.format(0.02), d.format(0.03)
    layer = QuantizedActivation("t", 9, *a, *b, d.table(name, a, b), name, ACTIVATIONS[name].alpha)
    assert_integers_are_equal(QuantizedNetwork([layer]), kernels)


def test_sums(rng):
    """Exact in the kernels without XNNPACK; that has an arithmetic of its own for sums, and may be off by one."""
    d = Drawn(13)
    for rounding in EXACT:
        for clamp, alpha in (("linear", 0.0), ("relu", 0.0), ("relu6", 3.0)):
            a, b, c = d.format(0.02), d.format(0.05), d.format(0.04)
            layers = [
                d.dense(20, 30, a, b),
                QuantizedAdd("add", 30, (b[0], b[0]), (b[1], b[1]), *c, clamp, alpha, inputs=(1, 1)),
            ]
            network = QuantizedNetwork(layers, rounding=rounding)
            if rounding == "onnx":
                to_tflite(QuantizedModel(network))
            else:
                assert_integers_are_equal(network)


def test_softmax_of_integers_is_off_by_one_at_most():
    d = Drawn(14)
    a, b = d.format(0.02), d.format(0.06)
    network = QuantizedNetwork(
        [d.dense(20, 10, a, b), QuantizedSoftmax("sm", 10, *b, -128, exponentials(b[0]))], rounding="tflite"
    )
    model = QuantizedModel(network)
    content, x = to_tflite(model), data_of(network)
    np.testing.assert_allclose(run(content, x), model.predict(x), atol=2 / 256)


def data_of(network, rows=200):
    return np.random.default_rng(4).normal(0, 1.5, (rows, *network.input_shape)).astype(F32)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu", "hard_swish", "leaky_relu", "silu"])
def test_operators_of_integers(activation, rng):
    """Those that accelerators know, in the place of tables where there is one."""
    model = randomise(made([nb.Dense(9, activation), nb.Dense(3)], (5,), "float32"))
    x = rng.normal(size=(300, 5)).astype(F32)
    quantized = quantize(model, x)
    content = to_tflite(quantized, activations="operators")
    assert ("GATHER" in operators_of(content)) == (activation == "silu")
    assert "GATHER" in operators_of(to_tflite(quantized))
    scale = quantized.network.formats[-1][0]
    np.testing.assert_allclose(run(content, x), quantized.predict(x), atol=3 * scale)


def test_rounding_that_no_kernel_has():
    network = dataclasses.replace(draw_network(0), rounding="gemmlowp")
    to_tflite(QuantizedModel(network))
    assert set(KERNELS) == set(ROUNDINGS)


@pytest.mark.parametrize("ends", [("float32", "int8"), ("int8", "float32"), ("int8", "int8")])
def test_ends(ends, rng):
    """Images, behind a flatten, and positions; the integers are the network's, whatever the ends."""
    for layers in ([nb.Flatten(), nb.Dense(6, "relu"), nb.Dense(3)], [nb.Dense(6, "relu"), nb.Dense(3)]):
        model = randomise(made(layers, (4, 5), "float32"))
        x = rng.normal(size=(100, 4, 5)).astype(F32)
        quantized = quantize(model, x, rounding="tflite")
        network = quantized.network
        content = to_tflite(quantized, inference_input_type=ends[0], inference_output_type=ends[1])
        given = x
        if ends[0] == "int8":
            (scale, zero_point), *_ = network.layers[0].input_formats
            given = np.clip(np.rint(x / F32(scale)) + zero_point, -128, 127).astype(np.int8)
        computed = run(content, given, "reference")
        expected = quantized.predict_integers(x) if ends[1] == "int8" else quantized.predict(x)
        assert computed.dtype == np.dtype(ends[1])
        if ends[0] == "int8":
            np.testing.assert_array_equal(computed.reshape(expected.shape), expected)


def test_softmax_in_float(rng):
    model = randomise(made([nb.Dense(6, "relu"), nb.Dense(3, "softmax")], (5,), "float32"))
    x = rng.normal(size=(100, 5)).astype(F32)
    quantized = quantize(model, x)
    np.testing.assert_allclose(run(to_tflite(quantized), x), quantized.predict(x), atol=0.02)
    content = to_tflite(quantized, inference_output_type="int8")
    assert "SOFTMAX" not in operators_of(content)


def test_float_layers_between(rng):
    layers = [nb.Dense(6, "relu"), nb.LayerNormalization(), nb.Dense(6, "elu"), nb.Dense(3)]
    model = randomise(made(layers, (5,), "float32"))
    x = rng.normal(size=(300, 5)).astype(F32)
    quantized = quantize(model, x, rounding="tflite")
    content = to_tflite(quantized)
    expected = quantized.predict(x)
    assert (np.abs(run(content, x) - expected) > 0.05 * np.abs(expected).max()).mean() < 0.05


def test_four_bits(rng):
    model = randomise(made([nb.Dense(6, "relu"), nb.Dense(3)], (5,), "float32"))
    assert_integers_are_equal(quantize(model, rng.normal(size=(300, 5)), bits=4, rounding="tflite").network)


# -- what is refused, and files --


def test_what_has_no_form_is_refused(rng):
    model = randomise(made([nb.Dense(6, "relu"), nb.Dense(3)], (5,), "float32"))
    x = rng.normal(size=(50, 5)).astype(F32)
    d = Drawn(3)
    a, b = d.format(0.02), d.format(0.03)
    zeros = QuantizedModel(QuantizedNetwork([d.dense(4, 3, a, b, kernel_zero_points=np.ones(3, np.int8))]))
    cases = [
        (quantize(model, scheme="dynamic"), {}, "is a dynamic dense layer, which TFLite has no form of"),
        (quantize(model, scheme="weight_only"), {}, "is a weight only dense layer, which TFLite has no form of"),
        (quantize(model, x, activation_dtype="uint8"), {}, "integers are int8, the network's are uint8"),
        (zeros, {}, "its weights have zero points"),
        (model, {"inference_input_type": "int8"}, "the input is not read as one kind of integers"),
        (model, {"inference_output_type": "int8"}, "the model's last layer computes in float"),
        (model, {"inference_output_type": "uint8"}, "inference_output_type must be 'float32' or 'int8', got 'uint8'"),
        (model, {"activations": "gather"}, "activations must be 'tables' or 'operators', got 'gather'"),
    ]
    for wrong, options, message in cases:
        with pytest.raises(ValueError, match=message):
            to_tflite(wrong, **options)
    with pytest.raises(TypeError, match="expected a model of nbdense's"):
        to_tflite(3)


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch, rng):
    model = randomise(made([nb.Dense(6, "relu"), nb.Dense(3)], (5,), "float32"))
    quantized = quantize(model, rng.normal(size=(50, 5)))
    path = tmp_path / "model.tflite"
    real = api.network_to_tflite

    def damaged(*arguments):
        made = real(*arguments)
        bias = next(tensor for name, tensor in made.tensors.items() if name.endswith("bias"))
        bias.data = bias.data + 40 * np.sign(bias.data + 0.5).astype(bias.data.dtype)
        return made

    monkeypatch.setattr(api, "network_to_tflite", damaged)
    for wrong in (model, quantized):
        with pytest.raises(RuntimeError, match="LiteRT does not compute what the model predicts, nothing was written"):
            to_tflite(wrong, path)
    assert not list(tmp_path.iterdir())
    to_tflite(model, path, verify=False)
    assert path.exists()


def test_verification_says_what_differs(tmp_path, rng):
    model = randomise(made([nb.Dense(6, "relu"), nb.Dense(3)], (5,), "float32"))
    other = randomise(made([nb.Dense(6, "relu"), nb.Dense(3)], (5,), "float32"), seed=6)
    x, path = rng.normal(size=(50, 5)).astype(F32), tmp_path / "model.tflite"
    to_tflite(model, path)
    assert verify_tflite(path, model, x).agrees
    result = verify_tflite(path, other, x)
    assert not result.agrees
    assert str(result).startswith("differs; 50 rows in LiteRT's default kernels; largest difference")
    for rounding, kernels in KERNELS.items():
        quantized = quantize(model, x, rounding=rounding)
        content = to_tflite(quantized, inference_input_type="int8", inference_output_type="int8")
        result = verify_tflite(content, quantized)
        assert (result.agrees, result.kernels, result.exact) == (True, kernels, rounding != "gemmlowp")
        assert result.differing_integers == 0 or rounding == "gemmlowp"
        assert not verify_tflite(content, quantize(other, x, rounding=rounding)).agrees
    with pytest.raises(FileFormatError, match="damaged"):
        verify_tflite(b"TFL3", model)


def test_bytes_are_the_same(tmp_path):
    model = model_of("everything")
    assert to_tflite(model, tmp_path / "a.tflite") == to_tflite(model) == (tmp_path / "a.tflite").read_bytes()
    again = nb.load_model(save(model, tmp_path / "m"))
    assert to_tflite(again) == to_tflite(model)
    with pytest.raises(OSError, match="folder"):
        to_tflite(model, tmp_path / "nowhere" / "a.tflite")


def save(model, path):
    model.save(path)
    return path


def test_numbers_are_those_of_the_schema():
    """As LiteRT's own reader of files has them."""
    from ai_edge_litert import schema_py_generated as schema

    for name, kind in KINDS.items():
        assert getattr(schema.BuiltinOperator, name) == kind.code
        if kind.options:
            options = next(key for key, value in vars(schema.BuiltinOptions).items() if value == kind.options)
            flat = options.removesuffix("Options").lower()
            assert flat == "maximumminimum" or name.replace("_", "").lower() in (flat, "mean")
    assert {"Gemm", "Add", "QuantizeLinear"} <= set(OPERATORS)


def test_without_flatbuffers(monkeypatch):
    monkeypatch.setattr(api, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'nbdense\[tflite\]'"):
        to_tflite(model_of("dense"))


def test_flattens_of_integers():
    d = Drawn(15)
    a, b = d.format(0.02), d.format(0.03)
    layers = [d.dense(7, 5, a, b, positions=3), QuantizedFlatten("flat", 5, *b, positions=3)]
    assert_integers_are_equal(QuantizedNetwork(layers, rounding="tflite"))
