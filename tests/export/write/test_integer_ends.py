"""Files that take and give integers: onnxruntime gives nbdense's, each of them."""

import json

import numpy as np
import onnxruntime
import pytest

from nbdense.export import from_onnx, to_onnx, verify_onnx
from nbdense.layers import BatchNormalization, Dense, Flatten, Input, Residual
from nbdense.models import Sequential
from nbdense.quant import quantize
from nbdense.quant.model.network import LIMITS
from tests.support.onnx_graphs import operators, optimised

NETWORKS = {
    "mlp": lambda: [Input((6,)), Dense(16, "relu"), Dense(9, "relu6"), Dense(3, "softmax")],
    "residual": lambda: [Input((6,)), Dense(8, "relu"), Residual([Dense(8)]), Dense(1)],
    "flattened": lambda: [Input((2, 3)), Flatten(), Dense(8, "relu"), Dense(4)],
    "positions": lambda: [Input((2, 3)), Dense(8, "relu"), Dense(4)],
    "table": lambda: [Input((6,)), Dense(8, "gelu"), Dense(3, "sigmoid")],
}


def made(name, dtype="int8", **options):
    model = Sequential(NETWORKS[name]())
    model.seed = 4
    x = np.random.default_rng(4).normal(size=(200, *model.input_shape[1:])).astype(np.float32)
    return quantize(model, x, activation_dtype=dtype, **options), x


def integers_of(x, q, dtype):
    (scale, zero_point), (low, high) = q.input_quantization, LIMITS[dtype]
    return np.clip(np.rint(x / np.float32(scale)) + zero_point, low, high).astype(dtype)


def run(proto, x):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[-1]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("flavour", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_every_integer(name, flavour, dtype):
    q, x = made(name, dtype)
    given, wanted = integers_of(x, q, dtype), q.predict_integers(x)
    assert np.unique(wanted).size > 20
    ends = {"inference_input_type": dtype, "inference_output_type": dtype}
    both = to_onnx(q, flavour=flavour, **ends)
    out = run(both, given)
    assert out.dtype == dtype and out.shape == wanted.shape
    np.testing.assert_array_equal(out, wanted)
    result = verify_onnx(both, q, x)
    assert result.agrees and result.integers == wanted.size and result.differing_integers == 0
    np.testing.assert_array_equal(run(to_onnx(q, flavour=flavour, inference_output_type=dtype), x), wanted)
    floats = run(to_onnx(q, flavour=flavour, inference_input_type=dtype), given)
    np.testing.assert_allclose(floats, q.predict(x), atol=1e-6)


@pytest.mark.parametrize("flavour", ["qdq", "qoperator"])
def test_a_convolution_takes_integers_too(flavour):
    model = Sequential([Input((1, 3, 3)), Flatten(), Dense(8, "relu"), Dense(2)])
    x = np.random.default_rng(2).normal(size=(64, 1, 3, 3)).astype(np.float32)
    q = quantize(model, x)
    proto = to_onnx(q, flavour=flavour, as_convolution=True, inference_input_type="int8", inference_output_type="int8")
    out = run(proto, integers_of(x, q, "int8"))
    np.testing.assert_array_equal(out.reshape(64, 2), q.predict_integers(x))
    assert verify_onnx(proto, q, x).agrees


def test_nothing_else_is_in_the_file(tmp_path):
    """With uint8; with int8 onnxruntime on x86 computes the outer layers in float, and gives the same integers."""
    q, _ = made("mlp", "uint8")
    proto = to_onnx(q, inference_input_type="uint8", inference_output_type="uint8")
    assert optimised(proto, tmp_path) == ["QGemm"] * 3
    assert "Softmax" not in operators(proto) and operators(proto)[-1] == "QuantizeLinear"


def test_metadata_says_the_scales():
    q, _ = made("mlp")
    proto = to_onnx(q, inference_input_type="int8", inference_output_type="int8", input_name="x", output_name="y")
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert tuple(json.loads(said["nbdense_input_quantization"])) == q.input_quantization
    assert tuple(json.loads(said["nbdense_output_quantization"])) == q.output_quantization
    plain = to_onnx(q)
    assert not {"nbdense_input_quantization", "nbdense_output_quantization"} & {e.key for e in plain.metadata_props}


def test_refusals():
    q, x = made("mlp")
    model = Sequential([Input((6,)), BatchNormalization(), Dense(3)])
    cases = [
        (q, {"inference_input_type": "uint8"}, "the network's integers are int8; give that, or quantize"),
        (q, {"inference_output_type": "int32"}, "must be one of 'float32', 'int8', 'uint8', got 'int32'"),
        (q, {"inference_output_type": "int8", "labels": True}, "leave labels out"),
        (model, {"inference_input_type": "int8"}, "the input is not read as one kind of integers; quantize with"),
        (quantize(model, x), {"inference_input_type": "int8"}, "the input is not read as one kind of integers"),
        (quantize(model, scheme="dynamic"), {"inference_output_type": "int8"}, "the last layer does not compute in"),
    ]
    for network, options, words in cases:
        with pytest.raises(ValueError, match=words):
            to_onnx(network, **options)


def test_verification_sees_another_model():
    q, x = made("mlp")
    proto = to_onnx(q, inference_input_type="int8", inference_output_type="int8")
    other = quantize(Sequential(NETWORKS["mlp"]()), x)
    assert not verify_onnx(proto, other, x).agrees
    for wrong in (Sequential(NETWORKS["mlp"]()), quantize(Sequential(NETWORKS["mlp"]()), x, activation_dtype="uint8")):
        with pytest.raises(ValueError, match="'input' is int8, and the model has no such input"):
            verify_onnx(proto, wrong, x)


def test_reading_them_is_refused():
    q, _ = made("mlp")
    with pytest.raises(
        ValueError, match="is the file's input, of integers: from_onnx reads files that take real numbers"
    ):
        from_onnx(to_onnx(q, inference_input_type="int8"))
    with pytest.raises(ValueError, match="none of its outputs .'output'. holds probabilities or values"):
        from_onnx(to_onnx(q, inference_output_type="int8"))
