"""Layers of every kind as float ONNX: onnxruntime computes what predict does, in files that the checker accepts."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbdense
from nbdense import activations
from nbdense import layers as k
from nbdense.activations import ACTIVATIONS
from nbdense.export import from_onnx, to_onnx, verify_onnx
from nbdense.export.graph.checks import serialize
from nbdense.export.graph.opsets import newest_opset
from nbdense.quant import quantize
from tests.support import strategies
from tests.support.onnx_graphs import ALWAYS_LOADABLE, operators
from tests.support.stacks import MORE_STACKS, STACKS, data, made, model_of, randomise

ALL = STACKS | MORE_STACKS


@pytest.mark.parametrize("name", ALL)
def test_onnxruntime_computes_the_same(name, tmp_path):
    model = model_of(name)
    for opset in sorted({13, 17, newest_opset()}):
        path = tmp_path / f"{opset}.onnx"
        fold = opset != 17  # both have their turn
        proto = to_onnx(model, path, opset=opset, verify=False, fold_batch_norm=fold)
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


def export(layers, shape, opset=None, **options):
    model = randomise(made(layers, shape, "float32"))
    proto = to_onnx(model, opset=opset, **options)  # and verified
    return operators(proto), proto, model


def test_operators():
    norms = [k.BatchNormalization(), k.LayerNormalization()]
    assert export(norms, (5,))[0] == ["BatchNormalization", "LayerNormalization"]
    norms = [k.BatchNormalization(), k.LayerNormalization()]
    assert export(norms, (3, 5))[0] == ["Mul", "Add", "LayerNormalization"]
    core = ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div"]
    assert export([k.LayerNormalization()], (5,), 16)[0] == [*core, "Mul", "Add"]
    assert export([k.LayerNormalization(center=False)], (5,), 16)[0] == [*core, "Mul"]
    assert export([k.LayerNormalization(center=False, scale=False)], (2, 5), 13)[0] == core
    core = ["Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
    assert export([k.RMSNormalization()], (5,))[0] == export([k.RMSNormalization()], (2, 5), 18)[0] == core
    assert export([k.RMSNormalization()], (2, 5), 23)[0] == ["RMSNormalization"]
    assert export([k.Dense(4, "relu"), k.Dense(2, use_bias=False)], (3, 5))[0] == ["MatMul", "Add", "Relu", "MatMul"]
    assert export([k.Flatten(), k.Dense(2)], (2, 3, 5))[0] == ["Flatten", "Gemm"]
    assert export([k.Dense(2), k.Flatten(), k.Dense(2)], (3, 5))[0] == ["MatMul", "Add", "Flatten", "Gemm"]
    assert export([k.Dense(2), k.Dropout(0.5), k.Softmax()], (5,))[0] == ["Gemm", "Softmax"]
    names, proto, _ = export([k.Residual([k.Dense(4, "tanh"), k.Dense(5)]), k.ReLU()], (5,))
    assert names == ["Gemm", "Tanh", "Gemm", "Add", "Relu"]
    assert "input" in proto.graph.node[3].input
    assert len({node.name for node in proto.graph.node}) == 5


def test_parameters_that_there_are_not_are_ones_and_zeros():
    bare = {"center": False, "scale": False}
    _, proto, model = export([k.BatchNormalization(**bare), k.LayerNormalization(**bare)], (5,))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert sorted(model.parameters) == ["batch_normalization/moving_mean", "batch_normalization/moving_variance"]
    for name in ("batch_normalization/gamma", "layer_normalization/gamma"):
        np.testing.assert_array_equal(tensors[name], np.ones(5))
    np.testing.assert_array_equal(tensors["batch_normalization/beta"], np.zeros(5))
    assert "layer_normalization/beta" not in tensors


@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_batch_normalisation_of_what_is_far_from_zero(shape):
    """As of unscaled data: folded, x scale + shift would cancel and lose the digits that verify_onnx asks for."""
    model = randomise(made([k.BatchNormalization(), k.Dense(3)], shape, "float32"))
    model.parameters["batch_normalization/moving_mean"][2] = 2000.0
    proto = to_onnx(model)
    assert operators(proto)[:3] == ["Sub", "Mul", "Add"]
    x = data(model, 100)
    x[..., 2] += 2000.0
    assert verify_onnx(proto, model, x).tolerance == 1e-5
    assert verify_onnx(proto, model, x).agrees


@pytest.mark.parametrize("name", ["everything", "positions", "transformer's block", "conv-like input, flat"])
def test_in_float64(name):
    model = model_of(name, "float64")
    proto = to_onnx(model)
    floats = {tensor.data_type for tensor in proto.graph.initializer}
    assert floats == {onnx.TensorProto.FLOAT}
    x = data(model, 64)
    np.testing.assert_allclose(session_of(proto).run(None, {"input": x})[0], model.predict(x), rtol=1e-4, atol=1e-5)
    assert verify_onnx(proto, model.network).agrees  # a bare network too


def session_of(proto):
    return onnxruntime.InferenceSession(serialize(proto), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("own_name", ["wave", "relu"])
@pytest.mark.parametrize("shape", [(5,), (2, 5)])
def test_an_activation_of_ones_own_is_named(own_name, shape):
    own = activations.Activation(own_name, activations.ON_DEMAND, lambda z: z * z, lambda z: 2 * z, False, "", own=True)
    for layers in ([k.Dense(4, own), k.Dense(2)], [k.Activation(own), k.Dense(2)]):
        with pytest.raises(ValueError, match=rf"layer '\w+': activation '{own_name}' is one of your own.*softplus"):
            to_onnx(made(layers, shape, "float32"))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("change", ["mean", "gamma", "beta", "kernel"])
def test_a_doctored_file_differs(change, opset):
    model = model_of("everything")
    proto = to_onnx(model, opset=opset)
    for tensor in proto.graph.initializer:
        what = tensor.name.rsplit("/", 1)[1]
        if what == {"kernel": "weight", "mean": "shift"}.get(change, change):
            value = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value + np.float32(0.01), tensor.name))
    result = verify_onnx(proto, model)
    assert not result.agrees
    assert result.max_absolute > 1e-4


def test_axes_that_do_not_fit_are_refused():
    model = model_of("positions")
    proto = to_onnx(model)
    with pytest.raises(ValueError, match=r"expects shape \(rows, 3, 5\), got \(4, 15\)"):
        verify_onnx(proto, model, np.zeros((4, 15)))
    with pytest.raises(ValueError, match=r"'input' has shape \['batch', 3, 5\], the model needs \[batch, 5\]"):
        verify_onnx(proto, model_of("dense"))
    x = data(model, 3)
    x[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="row 1, column 10"):
        verify_onnx(proto, model, x)


def test_classes_are_counted_on_the_last_axis():
    model = model_of("softmax of positions")
    proto = to_onnx(model)
    (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == "dense_1/bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 0, 100], np.float32), bias.name))
    x = data(model, 10)
    result = verify_onnx(proto, model, x)
    others = int((model.predict(x).argmax(axis=-1) != 2).sum())
    assert 10 < others <= 60
    counted = sum(int((model.predict(x[np.arange(n) % 10]).argmax(axis=-1) != 2).sum()) for n in (1, 7, 64, 10))
    assert result.differing_classes == counted


def test_parameters_that_float32_cannot_hold_are_named():
    for layer, what in ((k.BatchNormalization, "moving_variance"), (k.LayerNormalization, "gamma")):
        model = randomise(made([layer(), k.Dense(2)], (3, 5), "float64"))
        (name,) = (name for name in model.parameters if name.endswith(what))
        model.parameters[name][1] = 1e300
        with pytest.raises(ValueError, match=f"layer '{name.split('/')[0]}': its {what.split('_')[-1]} holds"):
            to_onnx(model)
    model = made([k.BatchNormalization()], (5,), "float32")
    model.parameters["batch_normalization/moving_variance"][0] = -1
    with pytest.raises(ValueError, match="layer 'batch_normalization': its moving variance plus epsilon"):
        to_onnx(model)


@given(strategies.stacks(), st.sampled_from([13, 17, ALWAYS_LOADABLE]), st.booleans(), strategies.SEEDS)
def test_drawn_models(stack, opset, fold, seed):
    model = strategies.model_of(stack, seed=seed)
    proto = to_onnx(model, opset=opset, verify=False, fold_batch_norm=fold)
    result = verify_onnx(proto, model, data(model, 50))
    assert result.agrees, result
    assert result.tolerance == 1e-5
    again = from_onnx(proto)
    assert (again.input_shape, again.output_shape) == (model.input_shape, model.output_shape)
    x = data(model, 50)
    expected = model.predict(x)
    np.testing.assert_allclose(again.predict(x), expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_on_more_axes(activation):
    layers = [k.Dense(7, activation), k.BatchNormalization(), k.Activation(activation)]
    model = randomise(made(layers, (2, 3), "float32"))
    for opset in (13, 17):
        result = verify_onnx(to_onnx(model, opset=opset), model, data(model, 50))
        assert result.agrees, result
        assert result.tolerance == 1e-5


def test_hard_swish_below_its_opset():
    assert export([k.Dense(3, "hard_swish")], (5,), 13)[0] == ["Gemm", "HardSigmoid", "Mul"]
    assert export([k.Dense(3, "hard_swish")], (5,), 14)[0] == ["Gemm", "HardSwish"]
    model = made([k.Dense(3, "hard_swish"), k.Dense(2)], (5,), "float32")
    assert verify_onnx(to_onnx(quantize(model, data(model, 100)), opset=13), quantize(model, data(model, 100))).agrees


def test_class_names_and_metadata_reach_the_runtime():
    model = model_of("dense")
    metrics = {"loss": np.float32(0.25), "accuracy": 0.5}
    proto = to_onnx(
        model, class_names=("no", "não", "maybe"), metadata={"metrics": metrics, "author": "a", "confusion": np.eye(2)}
    )
    said = session_of(proto).get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == ["no", "não", "maybe"]
    assert json.loads(said["metrics"]) == metrics
    assert said["confusion"] == "[[1.0, 0.0], [0.0, 1.0]]"
    assert said["author"] == "a"
    assert (said["nbdense_flavour"], said["nbdense_version"]) == ("float", nbdense.__version__)
    turned = {"author": "a", "confusion": np.eye(2), "metrics": dict(reversed(metrics.items()))}
    again = to_onnx(model, class_names=["no", "não", "maybe"], metadata=turned)
    assert serialize(again) == serialize(proto)
    assert "class_names" not in session_of(to_onnx(model)).get_modelmeta().custom_metadata_map


def test_two_classes_of_one_output():
    model = made([k.Dense(1, "sigmoid")], (5,), "float32")
    for each in (model, quantize(model, data(model, 50))):
        said = session_of(to_onnx(each, class_names=["no", "yes"])).get_modelmeta().custom_metadata_map
        assert said["class_names"] == '["no", "yes"]'


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b"], "abc", [0, 1, 2], [], 3])
def test_class_names_that_do_not_fit(names):
    with pytest.raises(ValueError, match="class_names must be 3 different strings for 3 outputs, got"):
        to_onnx(model_of("dense"), class_names=names)


@pytest.mark.parametrize("metadata", [{"nbdense_version": "9"}, {"class_names": "x"}, {3: "x"}, {"": "x"}])
def test_metadata_of_other_keys(metadata):
    with pytest.raises(ValueError, match="metadata needs keys of its own"):
        to_onnx(model_of("dense"), metadata=metadata)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", {"a": print}])
def test_metadata_that_is_no_json(value):
    with pytest.raises(TypeError, match="metadata must be a mapping of names to values, got list"):
        to_onnx(model_of("dense"), metadata=[("mine", value)])
    with pytest.raises(ValueError, match="metadata 'mine' is neither a string nor JSON: got"):
        to_onnx(model_of("dense"), metadata={"mine": value})


@pytest.mark.parametrize("name", ["dense", "flatten", "one position that stays", "residual of the input"])
def test_named_ends(name):
    model = model_of(name)
    proto = to_onnx(model, input_name="pixels", output_name="scores")
    x = data(model, 5)
    (found,) = session_of(proto).run(["scores"], {"pixels": x})
    np.testing.assert_allclose(found, model.predict(x), rtol=1e-4, atol=1e-5)
    tensors = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    assert not {"input", "output"} & tensors


def test_named_ends_of_a_quantized_model():
    model = made([k.Dense(4, "relu"), k.Dense(3, "softmax")], (5,), "float32")
    quantized = quantize(model, data(model, 50))
    proto = to_onnx(quantized, input_name="x", output_name="y")
    assert ([end.name for end in proto.graph.input], [end.name for end in proto.graph.output]) == (["x"], ["y"])
    assert verify_onnx(proto, quantized).agrees


@pytest.mark.parametrize("name", ["", "a/b", None, "output", "output_scale"])
def test_names_of_ends_that_could_meet_another(name):
    with pytest.raises(ValueError, match="input_name must (be|not be or begin with another end's name, 'output').*got"):
        to_onnx(model_of("dense"), input_name=name)
