"""TFLite files read back: the same values and integers, and damaged ones refused by one error."""

import dataclasses
import struct

import numpy as np
import pytest

import nbdense as nb
from nbdense.activations import ACTIVATIONS
from nbdense.export import from_tflite, to_tflite
from nbdense.export.tflite import flatbuffer
from nbdense.export.tflite.file import parse
from nbdense.export.tflite.flatbuffer import serialize
from nbdense.export.tflite.graph import quantization
from nbdense.export.tflite.schema import Operator, Quantization, Tensor, TfliteModel
from nbdense.export.tflite.verification import run
from nbdense.files import FileFormatError
from nbdense.quant import QuantizedModel, QuantizedNetwork, quantize
from nbdense.runtime.rounding import ROUNDINGS
from tests.support.drawn_networks import Drawn, draw_network
from tests.support.stacks import MORE_STACKS, STACKS, data, made, model_of, randomise

F32 = np.float32


def dense_model():
    return randomise(made([nb.Dense(6, "relu"), nb.Dense(4, "tanh"), nb.Dense(3, "softmax")], (5,), "float32"))


# -- what to_tflite writes --


@pytest.mark.parametrize("name", [*STACKS, *MORE_STACKS])
def test_stacks(name):
    model = model_of(name)
    again, x = from_tflite(to_tflite(model, verify=False)), data(model, 50)
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    model = randomise(made([nb.Dense(7, name), nb.Dense(3)], (5,), "float32"))
    again, x = from_tflite(to_tflite(model, verify=False)), data(model, 50)
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ends", ["float32", "int8"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_integers(seed, rounding, ends):
    """Tables, sums, flattens, scales of columns: all integers come back, whatever the file's ends."""
    network = dataclasses.replace(draw_network(seed), rounding=rounding, final_activation="linear")
    if network.tensors[-1][0] > 1:
        ends = "float32"
    model = QuantizedModel(network)
    content = to_tflite(model, inference_input_type=ends, inference_output_type=ends, verify=False)
    again = from_tflite(content, rounding=rounding)
    assert again.network.rounding == rounding
    x = np.random.default_rng(seed).normal(size=(300, *network.input_shape)).astype(F32)
    expected = model.predict(x)
    np.testing.assert_array_equal(again.predict(x).reshape(expected.shape), expected)


@pytest.mark.parametrize("kind", ["tables", "operators"])
def test_activations_of_integers(kind):
    model = dense_model()
    x = np.random.default_rng(1).normal(size=(300, 5)).astype(F32)
    quantized = quantize(model, x, rounding="tflite")
    again = from_tflite(to_tflite(quantized, activations=kind))
    np.testing.assert_allclose(again.predict(x), quantized.predict(x), atol=0.05)
    if kind == "tables":
        np.testing.assert_allclose(again.predict(x), quantized.predict(x), rtol=1e-5)


def test_as_floats():
    x = np.random.default_rng(1).normal(size=(300, 5)).astype(F32)
    quantized = quantize(dense_model(), x)
    again = from_tflite(to_tflite(quantized, activations="operators"), quantized="float")
    assert isinstance(again, nb.Sequential)
    np.testing.assert_allclose(again.predict(x), quantized.predict(x), atol=0.1)


def test_what_comes_back_is_trained(tmp_path):
    path = tmp_path / "model.tflite"
    to_tflite(dense_model(), path)
    model = from_tflite(path)
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(1)
    model.fit(rng.normal(size=(60, 5)), rng.integers(0, 3, 60), epochs=1, verbose=0)


# -- what others write --


def tensor(name, shape, dtype="float32", value=None, scale=None):
    known = None if scale is None else quantization(*scale)
    return Tensor(name, shape, dtype, value, known, value is None)


def model_with(tensors, operators):
    named = {one.name: one for one in tensors}
    return serialize(TfliteModel(named, operators, tensors[0].name, operators[-1].output), "another")


def test_other_forms_of_dense_layers():
    """Fused activations, weights that are dequantized first, no bias, more axes, and uint8 with zero points."""
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(4, 6)).astype(F32), rng.normal(size=4).astype(F32)
    integers = rng.integers(-127, 128, (3, 4)).astype(np.int8)
    tensors = [
        tensor("x", (1, 2, 3)),
        tensor("shape", (2,), "int32", np.array([-1, 6], np.int32)),
        tensor("flat", (1, 6)),
        tensor("w", (4, 6), value=weight),
        tensor("b", (4,), value=bias),
        tensor("hidden", (1, 4)),
        tensor("q", (3, 4), "int8", integers, ([0.01, 0.02, 0.03],)),
        tensor("dequantized", (3, 4)),
        tensor("y", (1, 3)),
    ]
    tensors[7].first_is_batch = False
    operators = [
        Operator("RESHAPE", ["x", "shape"], "flat"),
        Operator("FULLY_CONNECTED", ["flat", "w", "b"], "hidden", {"fused": 2}),
        Operator("DEQUANTIZE", ["q"], "dequantized"),
        Operator("FULLY_CONNECTED", ["hidden", "dequantized"], "y", {"fused": 3}),
    ]
    content = model_with(tensors, operators)
    x = rng.normal(size=(50, 2, 3)).astype(F32)
    hidden = np.clip(x.reshape(50, 6) @ weight.T + bias, -1, 1)
    expected = np.clip(hidden @ (integers * np.array([[0.01], [0.02], [0.03]], F32)).T, 0, 6)
    for model in (from_tflite(content), from_tflite(content, quantized="float")):
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


def test_operators_that_are_not_dense_networks_are_refused():
    x, y, z = tensor("x", (1, 4)), tensor("y", (1, 4)), tensor("z", (1, 4))
    weight = tensor("w", (4, 4), value=np.eye(4, dtype=F32))
    cases = [
        ([Operator("FULLY_CONNECTED", ["x", "y"], "z")], "reads '1:y', which nothing has made before"),
        ([Operator("FULLY_CONNECTED", ["x", "x"], "z")], "no constant matrix of weights"),
        ([Operator("FULLY_CONNECTED", ["x", "w"], "z", {"fused": 4})], "the fused activation 4"),
        ([Operator("SOFTMAX", ["x"], "z", {"beta": 2.0})], "has a factor, 2.0"),
        ([Operator("CAST", ["x"], "z")], "is of no integers that are looked up"),
        ([Operator("GATHER", ["w", "x"], "z")], "no look-up of integers"),
        ([Operator("QUANTIZE", ["x"], "z")], "has no scale"),
        ([Operator("RELU", ["x"], "y"), Operator("RELU", ["x"], "y")], "which is made already"),
        ([Operator("ADD", ["x", "x"], "y"), Operator("DIV", ["y", "x"], "z")], "from_tflite"),
    ]
    for operators, message in cases:
        with pytest.raises(ValueError, match=message):
            from_tflite(model_with([x, y, z, weight], operators))


def test_options_are_checked(tmp_path):
    content = to_tflite(dense_model())
    with pytest.raises(ValueError, match="rounding must be one of 'onnx', 'tflite'"):
        from_tflite(content, rounding="half")
    with pytest.raises(ValueError, match="quantized must be 'auto' or 'float'"):
        from_tflite(content, quantized="no")
    with pytest.raises(FileNotFoundError, match="no TFLite file"):
        from_tflite(tmp_path / "nothing")


# -- damage --


def outcome(content):
    """None where it is refused by one of the errors that are said."""
    try:
        model = from_tflite(content)
    except (FileFormatError, ValueError) as error:
        assert "from_tflite: the file: " in str(error) or "the file is damaged or truncated" in str(error), error
        return None
    return model


def contents():
    rng = np.random.default_rng(1)
    yield to_tflite(dense_model(), verify=False)
    yield to_tflite(quantize(dense_model(), rng.normal(size=(100, 5)).astype(F32)), verify=False)


def test_truncated_anywhere():
    for content in contents():
        assert outcome(content) is not None
        for cut in sorted({0, 1, 4, 8, 9, *np.linspace(0, len(content) - 1, 150).astype(int).tolist()}):
            outcome(content[:cut])  # data lies behind the tables in places: the rest may be whole
        for cut in range(0, 200, 7):
            assert outcome(content[:cut]) is None


@pytest.mark.filterwarnings("ignore")
def test_bytes_changed_anywhere():
    """No crash, no other error, and no memory that the file does not account for."""
    rng = np.random.default_rng(3)
    for content in contents():
        refused = 0
        for place in rng.integers(0, len(content), 700).tolist():
            for value in rng.choice([0, 1, 127, 128, 255], 2, replace=False).tolist():
                refused += outcome(content[:place] + bytes([value]) + content[place + 1 :]) is None
        assert refused > 100


@pytest.mark.filterwarnings("ignore")
def test_offsets_that_lead_anywhere():
    rng = np.random.default_rng(4)
    for content in contents():
        for place in rng.integers(0, len(content) // 4, 300).tolist():
            for value in (0, 4, 2**31 - 1, 2**32 - 1, len(content) - 4, len(content)):
                outcome(content[: 4 * place] + struct.pack("<I", value) + content[4 * place + 4 :])


def test_no_tflite_file(tmp_path):
    for content in (b"", b"TFL3", b"\x00" * 100, b"\xff" * 100, bytes(4) + b"TFL3" + bytes(40)):
        with pytest.raises(FileFormatError, match="damaged or truncated, or no TFLite file"):
            from_tflite(content)
    path = tmp_path / "m"
    dense_model().save(path)
    with pytest.raises(FileFormatError, match="m is damaged"):
        from_tflite(path)


def test_constants_beyond_the_file_are_refused(monkeypatch):
    """Tensors that share a buffer may not claim more than the file accounts for."""
    big = np.zeros((512, 1024), F32)
    weights = [tensor(f"w{i}", (512, 1024), value=big) for i in range(4)]
    tensors = {one.name: one for one in [tensor("x", (1, 1024)), *weights, tensor("y", (1, 512))]}
    model = TfliteModel(tensors, [Operator("FULLY_CONNECTED", ["x", "w0"], "y")], "x", "y")
    content = serialize(model, "")
    assert outcome(content) is not None
    real, once = flatbuffer._Writer._buffer, []

    def shared(writer, data):
        once.append(once[0] if once else real(writer, data))
        return once[0]

    monkeypatch.setattr(flatbuffer._Writer, "_buffer", shared)
    shorter = serialize(model, "")
    assert len(shorter) < len(content) / 3
    with pytest.raises(FileFormatError, match="its tensors hold more than the file"):
        from_tflite(shorter)


def test_what_is_written_is_what_is_read():
    """All that a file says of tensors and operators."""
    network = QuantizedNetwork(
        [Drawn(1).dense(4, 3, (float(F32(0.02)), 5), (float(F32(0.03)), -7), "relu6", alpha=6.0)]
    )
    model = parse(to_tflite(QuantizedModel(network), verify=False))
    (product,) = (operator for operator in model.operators if operator.kind == "FULLY_CONNECTED")
    weight = model.tensors[product.inputs[1]]
    np.testing.assert_array_equal(weight.data, network.layers[0].kernel.T)
    assert isinstance(weight.quantization, Quantization)
    np.testing.assert_array_equal(weight.quantization.scales, network.layers[0].kernel_scales)
    made_ = model.tensors[product.output].quantization
    assert (float(made_.scales[0]), int(made_.zero_points[0])) == (float(F32(0.03)), -7)
    assert run(to_tflite(QuantizedModel(network)), np.zeros((2, 4), F32)).shape == (2, 3)
