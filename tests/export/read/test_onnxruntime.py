"""Files of onnxruntime's optimizations and of its quantizer are read, and compute the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from nbdense import layers as k
from nbdense.export import from_onnx, to_onnx, verify_onnx
from tests.support.stacks import data, made, randomise

FUSED = {"relu": "FusedGemm", "leaky_relu": "FusedGemm", "hard_sigmoid": "FusedGemm", "softsign": "FusedGemm"}
FUSED |= {"silu": "QuickGelu"}


class Rows(CalibrationDataReader):
    def __init__(self, x):
        self.batches = iter([{"input": part} for part in np.split(x, 10)])

    def get_next(self):
        return next(self.batches, None)


def network(activation):
    return randomise(made([k.Dense(8, activation), k.Dense(7, activation), k.Dense(3)], (6,), "float32"))


def outputs(path, x):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": x})[0]


@pytest.mark.parametrize("activation", [*FUSED, "tanh", "elu", "softplus", "gelu", "mish", "hard_swish"])
def test_optimised_files(activation, tmp_path):
    model = network(activation)
    to_onnx(model, tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    if activation in FUSED:
        assert FUSED[activation] in {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    again = from_onnx(tmp_path / "optimised.onnx")
    assert [layer.activation.name for layer in again.layers] == [activation, activation, "linear"]
    x = data(model, 40)
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8], ids=str)
@pytest.mark.parametrize("form", QuantFormat, ids=str)
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "mish", "softsign", "log_softmax", "hard_tanh"])
def test_quantized_files(activation, form, kind, tmp_path):
    """silu is a Sigmoid and a Mul, rounded in between: one table, from the dense layer's integers to the product's."""
    model = network(activation)
    to_onnx(model, tmp_path / "m.onnx")
    x = data(model, 200, 1)
    quantize_static(
        tmp_path / "m.onnx",
        tmp_path / "q.onnx",
        Rows(x),
        quant_format=form,
        activation_type=kind,
        weight_type=QuantType.QInt8,
    )
    again = from_onnx(tmp_path / "q.onnx")
    found, wanted = again.predict(x), outputs(tmp_path / "q.onnx", x)
    step = again.network.layers[-1].output_scale
    # Of gelu's six roundings one falls otherwise where products are of integers, as between onnxruntime's two forms.
    assert np.abs(found - wanted).max() <= (4.001 if activation == "gelu" else 1.001) * step
    assert activation == "gelu" or (np.abs(found - wanted) > 0.5 * step).mean() <= 0.01
    kinds = [layer.activation for layer in again.network.layers]
    if activation != "log_softmax":
        assert kinds[-1] == "linear" and kinds[:-1] in ([activation] * 2, ["linear"] * 2)
    for flavour in ("qdq", "qoperator"):
        result = verify_onnx(to_onnx(again, flavour=flavour, verify=False), again, x)
        assert result.agrees, (flavour, result)


def node(operator, inputs, output="y", domain="com.microsoft", **attributes):
    return onnx.helper.make_node(operator, inputs.split(), [output], domain=domain, **attributes)


BIAS = np.array([0.5, -1.0, 0.25, 2.0], np.float32)
KERNEL = np.arange(16, dtype=np.float32).reshape(4, 4) / 8 - 1
CASES = {
    "FastGelu": (node("FastGelu", "x"), {}),
    "FastGelu with a bias": (node("FastGelu", "x b"), {"b": BIAS}),
    "BiasGelu": (node("BiasGelu", "x b"), {"b": BIAS}),
    "QuickGelu": (node("QuickGelu", "x"), {}),
    "Gelu": (node("Gelu", "x"), {}),
    "FusedMatMul": (node("FusedMatMul", "x k", alpha=0.5, transB=1), {"k": KERNEL}),
    "FusedGemm": (node("FusedGemm", "x k b", activation="LeakyRelu", activation_alpha=0.3), {"k": KERNEL, "b": BIAS}),
    "FusedGemm transposed": (
        node("FusedGemm", "x k b", transB=1, alpha=2.0, activation="Relu"),
        {"k": KERNEL, "b": BIAS},
    ),
}


def graph_of(one, constants):
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    held = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph([one], "g", ends[:1], ends[1:], held)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("name", CASES)
def test_operators_of_onnxruntimes(name):
    proto = graph_of(*CASES[name])
    x = np.random.default_rng(2).normal(0, 2, (30, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x})[0]
    # Its gelus are faster and less exact.
    np.testing.assert_allclose(from_onnx(proto).predict(x), wanted, rtol=1e-4, atol=1e-4)


def test_an_unknown_activation_is_refused():
    proto = graph_of(node("FusedGemm", "x k", activation="Affine"), {"k": KERNEL})
    with pytest.raises(ValueError, match="FusedGemm node .*: its activation 'Affine' is none that from_onnx takes"):
        from_onnx(proto)
