"""Layers of every kind as float ONNX: onnxruntime computes what predict does, in files that the checker accepts."""

import numpy as np
import onnx
import onnxruntime
import pytest

from nbdense import layers as k
from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph import newest_opset, serialize
from test_export import ALWAYS_LOADABLE
from test_layers import STACKS, made, randomise

MORE_STACKS = {
    "conv-like input, flat": (lambda: [k.Flatten(), k.Dense(6, "relu"), k.BatchNormalization(), k.Dense(2)], (2, 3, 4)),
    "nothing but a flatten of axes": (lambda: [k.Flatten()], (2, 3)),
    "a flatten amid, of one position": (lambda: [k.Dense(4, "relu"), k.Flatten(), k.Dense(3)], (1, 5)),
    "one position that stays": (lambda: [k.Dense(4, "relu"), k.LayerNormalization(), k.Dense(3)], (1, 1, 5)),
    "norms of one column": (lambda: [k.Dense(1), k.LayerNormalization(), k.BatchNormalization()], (3, 2)),
    "without bias": (lambda: [k.Dense(4, use_bias=False), k.LayerNormalization(center=False)], (3, 5)),
    "softmax of positions": (lambda: [k.Dense(4, "relu"), k.Dense(3, "softmax")], (2, 3, 5)),
    "bare norms of positions": (
        lambda: [k.BatchNormalization(center=False, scale=False), k.LayerNormalization(center=False, scale=False)],
        (3, 5),
    ),
    "residual of positions": (lambda: [k.Residual([k.Dense(6, "gelu")]), k.Flatten(), k.ReLU(), k.Dense(2)], (2, 5)),
    "dropout only": (lambda: [k.Dropout(0.5)], (2, 5)),
}
ALL = STACKS | MORE_STACKS


def model_of(name, dtype="float32"):
    layers, shape = ALL[name]
    return randomise(made(layers(), shape, dtype))


def data(model, rows, seed=8):
    return np.random.default_rng(seed).standard_normal((rows, *model.network.input_shape), np.float32)


@pytest.mark.parametrize("name", ALL)
def test_onnxruntime_computes_the_same(name, tmp_path):
    model = model_of(name)
    for opset in sorted({13, 17, newest_opset()}):
        path = tmp_path / f"{opset}.onnx"
        proto = to_onnx(model, path, opset=opset, verify=False)
        onnx.checker.check_model(str(path), full_check=True)
        ends = [
            [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim]
            for end in (*proto.graph.input, *proto.graph.output)
        ]
        assert ends == [["batch", *model.network.input_shape], ["batch", *model.network.output_shape]]
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception:
            assert opset > ALWAYS_LOADABLE
            continue
        for batch in (1, 7, 64):
            x = data(model, batch)
            expected = model.predict(x)
            (found,) = session.run(None, {"input": x})
            assert found.shape == expected.shape
            size = np.abs(expected).max(axis=-1, keepdims=True)
            assert (np.abs(found - expected) <= 1e-5 * np.maximum(size, 1)).all(), opset
        result = verify_onnx(path, model, data(model, 20))
        assert result.agrees, result
        assert result.batch_sizes == (1, 7, 64, 20)


@pytest.mark.parametrize("name", ALL)
def test_bytes_are_the_same(name):
    assert serialize(to_onnx(model_of(name), verify=False)) == serialize(to_onnx(model_of(name), verify=False))
