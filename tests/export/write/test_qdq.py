"""Quantized networks as QDQ graphs: onnxruntime fuses them to integers, and they are nbdense's integers."""

import dataclasses

import numpy as np
import onnx
import pytest

from nbdense.export import to_onnx, verify_onnx
from nbdense.quant import quantize
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import LIMITS, QuantizedNetwork
from tests.support.onnx_graphs import network, optimised, rows

DTYPES = sorted(LIMITS)


def with_relu_zero_point(quantized, zero_point):
    """The network with its relu outputs' zero point moved inwards, as a symmetric range has it."""
    layers = list(quantized.network.layers)
    for i in range(len(layers) - 1):
        layers[i] = dataclasses.replace(layers[i], output_zero_point=zero_point, pre_zero_point=zero_point)
        layers[i + 1] = dataclasses.replace(layers[i + 1], input_zero_point=zero_point)
    return QuantizedModel(dataclasses.replace(quantized.network, layers=layers))


def agrees_exactly(model, quantized, x=None):
    """Integers and classes are equal; onnxruntime's own saturation on old CPUs aside."""
    result = verify_onnx(model, quantized, x)
    assert result.agrees, result
    if not result.saturates:
        assert (result.differing_integers, result.differing_classes) == (0, 0), result
        assert result.max_absolute <= 1e-6, result
    return result


@pytest.mark.parametrize("final", ["softmax", "linear", "relu"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_networks_are_fused_and_equal(dtype, granularity, final, tmp_path):
    for sizes in [(1, 1, 2), (13, 37, 17, 5), (64, 65, 31, 10)]:
        net = network(sizes, ["relu"] * (len(sizes) - 2) + [final])
        quantized = quantize(net, rows(sizes[0]), activation_dtype=dtype, granularity=granularity)
        model = to_onnx(quantized)
        agrees_exactly(model, quantized, rows(sizes[0], 2000, seed=2))
        fused = ["QuantizeLinear", *["QGemm"] * (len(sizes) - 1), "DequantizeLinear"]
        assert optimised(model, tmp_path) == fused + ["Softmax"] * (final == "softmax")


@pytest.mark.parametrize(
    "names", [["tanh", "sigmoid", "softmax"], ["sigmoid", "tanh", "tanh"], ["tanh", "relu", "sigmoid"]]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_have_integers_on_both_sides(dtype, names, tmp_path):
    quantized = quantize(network((9, 21, 14, 4), names), rows(9), activation_dtype=dtype)
    model = to_onnx(quantized)
    # Here onnxruntime computes the function itself: its value may round to the other side.
    result = verify_onnx(model, quantized, rows(9, 2000, seed=2))
    assert result.agrees, result
    assert result.saturates or result.differing_integers <= result.integers / 1000
    assert optimised(model, tmp_path).count("QGemm") == 3
    assert "Gemm" not in optimised(model, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_above_the_types_minimum(dtype, tmp_path):
    quantized = quantize(network((9, 21, 14, 4), ["relu", "relu", "linear"]), rows(9), activation_dtype=dtype)
    moved = with_relu_zero_point(quantized, LIMITS[dtype][0] + 100)
    model = to_onnx(moved)
    agrees_exactly(model, moved)
    assert optimised(model, tmp_path).count("QGemm") == 3


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
def test_other_opsets_are_fused_too(opset, tmp_path):
    quantized = quantize(network((5, 8, 3), ["relu", "softmax"]), rows(5))
    model = to_onnx(quantized, opset=opset)
    agrees_exactly(model, quantized)
    assert optimised(model, tmp_path) == ["QuantizeLinear", "QGemm", "QGemm", "DequantizeLinear", "Softmax"]


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_and_zero_points(dtype, granularity):
    net = network((5, 8, 3), ["relu", "softmax"])
    quantized = quantize(net, rows(5), activation_dtype=dtype, granularity=granularity)
    model = to_onnx(quantized)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert len(node.input) == 3
            scale, zero_point = tensors[node.input[1]], tensors[node.input[2]]
            assert scale.dtype == np.float32
            assert scale.shape == zero_point.shape
            if node.input[0] not in tensors:
                assert scale.shape == ()
                assert zero_point.dtype == dtype
    for layer in quantized.network.layers:
        assert np.array_equal(tensors[f"{layer.name}/weight_quantized"], layer.kernel.T)
        assert np.array_equal(tensors[f"{layer.name}/bias_quantized"], layer.bias)
        scales = layer.bias_scales()
        expected = scales if granularity == "per_channel" else scales[0]
        assert np.array_equal(tensors[f"{layer.name}/bias_scale"], expected)
        assert tensors[f"{layer.name}/bias_zero_point"].dtype == np.int32
    assert model.graph.node[-1].op_type == "Softmax"
    assert model.graph.node[-2].op_type == "DequantizeLinear"
    assert {p.key: p.value for p in model.metadata_props}["nbdense_flavour"] == "qdq"


def test_other_rounding_is_refused(tmp_path):
    quantized = quantize(network((5, 8, 3), ["relu", "softmax"]), rows(5), rounding="tflite")
    with pytest.raises(ValueError, match="rounds as 'tflite'.*rounding='onnx'"):
        to_onnx(quantized, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_bare_quantized_network():
    quantized = quantize(network((5, 8, 3), ["relu", "softmax"]), rows(5)).network
    assert isinstance(quantized, QuantizedNetwork)
    agrees_exactly(to_onnx(quantized), quantized)
