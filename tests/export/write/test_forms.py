"""Forms that to_onnx writes on request: batch normalisation folded, labels, a convolution."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from nbdense import layers as k
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import DENSE, FROZEN_NORM, rows_of
from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph.checks import serialize
from nbdense.export.graph.opsets import newest_opset
from nbdense.quant import quantize
from tests.support.onnx_graphs import ALWAYS_LOADABLE, operators
from tests.support.stacks import MORE_STACKS, STACKS, data, made, randomise


def of(*layers, shape, dtype="float32", seed=5):
    return randomise(made(list(layers), shape, dtype), seed)


def run(proto, x):
    """All outputs by name."""
    session = onnxruntime.InferenceSession(serialize(proto), providers=["CPUExecutionProvider"])
    names = [end.name for end in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


# -- batch normalisation --

BN = k.BatchNormalization
FOLDED = {
    "behind a dense layer": (lambda: [k.Dense(7), BN(), k.ReLU(), k.Dense(3)], (5,), ["Gemm", "Relu", "Gemm"]),
    "behind one without a bias": (lambda: [k.Dense(7, use_bias=False), BN()], (5,), ["Gemm"]),
    "before a dense layer": (lambda: [BN(), k.Dense(3, "tanh")], (5,), ["Gemm", "Tanh"]),
    "before one without a bias": (lambda: [BN(), k.Dense(3, use_bias=False)], (5,), ["Gemm"]),
    "behind an activation": (lambda: [k.Dense(4, "tanh"), BN(), k.Dense(2)], (5,), ["Gemm", "Tanh", "Gemm"]),
    "two in a row": (lambda: [k.Dense(4), BN(scale=False), BN(center=False), k.ReLU()], (5,), ["Gemm", "Relu"]),
    "dropout between": (lambda: [k.Dense(4), k.Dropout(0.5), BN(), k.Dropout(0.5)], (5,), ["Gemm", "Identity"]),
    "on positions": (lambda: [k.Dense(4), BN(), k.Dense(2, use_bias=False)], (3, 5), ["MatMul", "Add", "MatMul"]),
    "on a flattened input": (lambda: [k.Flatten(), BN(), k.Dense(2)], (2, 3), ["Flatten", "Gemm"]),
    "inside a residual": (
        lambda: [k.Residual([BN(), k.Dense(6, "relu"), BN(), k.Dense(5), BN()]), k.Dense(2)],
        (5,),
        ["Gemm", "Relu", "Gemm", "Add", "Gemm"],
    ),
    "before a residual with a projection": (
        lambda: [k.Dense(4, "relu"), BN(), k.Residual([k.Dense(6, "relu")])],
        (5,),
        ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Add"],
    ),
}
KEPT = {
    "last behind an activation": (lambda: [k.Dense(4, "tanh"), BN()], (5,), ["Gemm", "Tanh", "BatchNormalization"]),
    "alone": (lambda: [BN()], (5,), ["BatchNormalization"]),
    "before an activation": (lambda: [BN(), k.ReLU(), k.Dense(2)], (5,), ["BatchNormalization", "Relu", "Gemm"]),
    "whose input is read twice": (
        lambda: [k.Dense(4), k.Residual([BN(), k.ReLU()])],
        (5,),
        ["Gemm", "BatchNormalization", "Relu", "Add"],
    ),
    "before a residual": (
        lambda: [BN(), k.Residual([k.Dense(5)])],
        (5,),
        ["BatchNormalization", "Gemm", "Add"],
    ),
    "before a flatten": (lambda: [k.Activation("tanh"), BN(), k.Flatten(), k.Dense(2)], (3, 5), None),
}


@pytest.mark.parametrize("opset", [13, 17, ALWAYS_LOADABLE])
@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_batch_normalisation_is_folded_where_it_can_be(name, opset):
    layers, shape, expected = (FOLDED | KEPT)[name]
    model = of(*layers(), shape=shape)
    proto = to_onnx(model, opset=opset, verify=False)
    if expected is not None:
        assert operators(proto) == expected
    kept = to_onnx(model, opset=opset, fold_batch_norm=False, verify=False)
    norms = len(rows_of(model.network.inference, FROZEN_NORM))
    assert len(kept.graph.node) >= len(proto.graph.node) + (norms if name in FOLDED else 0)
    for each in (proto, kept):
        result = verify_onnx(each, model, data(model, 50))
        assert result.agrees, result
        assert result.tolerance == 1e-5


@pytest.mark.parametrize("name", sorted(STACKS | MORE_STACKS))
def test_folding_changes_no_value(name):
    layers, shape = (STACKS | MORE_STACKS)[name]
    model = of(*layers(), shape=shape, dtype="float64")
    before = model.network.params.copy()
    for fold in (False, True):
        x = data(model, 30)
        found = run(to_onnx(model, fold_batch_norm=fold, verify=False), x)["output"]
        np.testing.assert_allclose(found, model.predict(x.astype(np.float64)), rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(model.network.params, before)


@pytest.mark.parametrize("layers", [[BN(), k.Dense(3)], [k.Residual([BN(), k.Dense(6)])]])
def test_a_norm_on_unscaled_inputs_is_not_folded(layers):
    model = of(*layers, shape=(6,))
    (mean,) = (view for name, view in model.parameters.items() if name.endswith("moving_mean"))
    mean[2] = 2000.0
    proto = to_onnx(model)
    assert operators(proto)[:3] == ["Sub", "Mul", "Add"]
    # Behind a dense layer its mean is no matter: nothing is rounded more than in the product.
    model = of(k.Dense(6), BN(), k.Dense(3), shape=(6,))
    model.parameters["batch_normalization/moving_mean"][2] = 2000.0
    model.parameters["dense/bias"][2] = 2000.0
    assert operators(to_onnx(model)) == ["Gemm", "Gemm"]


def test_what_is_folded_is_still_checked():
    for what, value, message in (
        ("moving_variance", -1.0, "moving variance plus epsilon is not above zero"),
        ("gamma", np.nan, "its gamma holds NaN"),
        ("moving_mean", np.inf, "its mean holds NaN, infinity"),
    ):
        model = of(k.Dense(4), BN(), shape=(5,))
        model.parameters[f"batch_normalization/{what}"][1] = value
        with pytest.raises(ValueError, match=f"layer 'batch_normalization': .*{message}"):
            to_onnx(model)


# -- labels --


def labelled(final, units, shape=(5,), **options):
    model = of(k.Dense(8, "tanh"), k.Dense(units, final), shape=shape)
    x = data(model, 100)
    proto = to_onnx(model, labels=True, **options)
    return proto, run(proto, x), model.predict(x)


@pytest.mark.parametrize("opset", [13, 17, ALWAYS_LOADABLE])
@pytest.mark.parametrize("final", ["softmax", "linear", "sigmoid"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_class_numbers(shape, final, opset):
    proto, found, expected = labelled(final, 4, shape, opset=opset)
    assert list(found) == ["label", "output"]
    assert found["label"].dtype == np.int64
    np.testing.assert_array_equal(found["label"], expected.argmax(axis=-1))
    np.testing.assert_allclose(found["output"], expected, atol=1e-5)
    assert [d.dim_param or d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        *shape[:-1],
    ]


@pytest.mark.parametrize("opset", [13, 17, ALWAYS_LOADABLE])
@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_class_names(shape, opset):
    names = ["no", "não", "vielleicht", ""]
    _, found, expected = labelled("softmax", 4, shape, class_names=names, opset=opset)
    np.testing.assert_array_equal(found["label"], np.array(names, object)[expected.argmax(axis=-1)])


@pytest.mark.parametrize("final", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("names", [None, ["healthy", "ill"]])
@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_one_probability(shape, names, final):
    _, found, expected = labelled(final, 1, shape, class_names=names, label_name="class", output_name="p")
    assert list(found) == ["class", "p"]
    numbers = (expected[..., 0] >= 0.5).astype(np.int64)
    assert 0 < numbers.sum() < numbers.size
    np.testing.assert_array_equal(found["class"], numbers if names is None else np.array(names, object)[numbers])


def test_exactly_a_half_is_class_1_and_the_first_of_equals_is_taken():
    for units, final, expected in ((1, "sigmoid", 1), (3, "softmax", 0)):
        model = made([k.Dense(units, final)], (2,), "float32")
        assert run(to_onnx(model, labels=True), np.zeros((4, 2), np.float32))["label"].tolist() == [expected] * 4


def test_one_value_has_no_label():
    with pytest.raises(ValueError, match="labels need several outputs or one probability.*'linear'"):
        labelled("linear", 1)
    model = of(k.Dense(1), shape=(5,))
    with pytest.raises(ValueError, match="one output, of 'linear'"):
        to_onnx(quantize(model, data(model, 50)), labels=True)


@pytest.mark.parametrize("name", ["", "a/b", "output", "input_x", "output_scale", 3])
def test_label_names_that_could_meet_another(name):
    with pytest.raises(ValueError, match="(label|output)_name .*got"):
        labelled("softmax", 3, label_name=name)
    model = of(k.Dense(3), shape=(5,))
    assert len(to_onnx(model, label_name=name).graph.output) == 1  # there is none to be called so


@pytest.mark.parametrize("final", ["softmax", "sigmoid", "linear", "relu"])
def test_labels_of_a_quantized_model(final):
    model = of(k.Dense(8, "relu"), k.Dense(4, final), shape=(5,))
    quantized = quantize(model, data(model, 200))
    proto = to_onnx(quantized, labels=True, class_names=["a", "b", "c", "d"])
    result = verify_onnx(proto, quantized)
    assert result.agrees, result
    assert result.differing_labels == 0
    found = run(proto, data(model, 50))
    assert (found["label"] == np.array(["a", "b", "c", "d"], object)[found["output"].argmax(axis=-1)]).all()


@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_doctored_labels_differ(names):
    model = of(k.Dense(3, "softmax"), shape=(5,))
    proto = to_onnx(model, labels=True, class_names=names)
    assert verify_onnx(proto, model).differing_labels == 0
    if names is None:
        (node,) = (node for node in proto.graph.node if node.op_type == "ArgMax")
        node.op_type = "ArgMin"
    else:
        (said,) = (entry for entry in proto.metadata_props if entry.key == "class_names")
        said.value = json.dumps(["a", "c", "b"])
    result = verify_onnx(proto, model)
    assert not result.agrees
    assert result.differing_labels > 0
    assert "labels are not the outputs'" in str(result)


def test_names_as_labels_need_names():
    model = of(k.Dense(3, "softmax"), shape=(5,))
    proto = to_onnx(model, labels=True, class_names=["a", "b", "c"])
    del proto.metadata_props[:]
    with pytest.raises(ValueError, match="metadata has no class_names"):
        verify_onnx(proto, model)


# -- convolutions --

IMAGES = {
    "one layer": lambda: [k.Flatten(), k.Dense(3, "softmax")],
    "hidden layers": lambda: [k.Flatten(), k.Dense(9, "relu"), k.Dense(7, "tanh"), k.Dense(3, "softmax")],
    "norms": lambda: [k.Flatten(), k.Dense(9), k.LayerNormalization(), k.ReLU(), BN(), k.ReLU(), k.Dense(3)],
    "a bare norm": lambda: [k.Flatten(), k.Dense(9), k.LayerNormalization(center=False, scale=False), k.Dense(2)],
    "residual": lambda: [k.Flatten(), k.Dense(6, "relu"), k.Residual([k.Dense(8, "gelu"), k.Dense(6)]), k.Dense(2)],
    "residual with a projection of the image": lambda: [k.Flatten(), k.Residual([k.Dense(6, "relu"), k.Dense(4)])],
    "activation on the image": lambda: [k.Flatten(), k.Activation("relu"), k.Dense(6, use_bias=False), k.Dense(2)],
    "norm on the image, folded": lambda: [k.Flatten(), BN(), k.Dense(6, "relu"), k.Dropout(0.5), k.Dense(2)],
}


@pytest.mark.parametrize("opset", [13, 17, 18, newest_opset()])
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 2, 7), (2, 1, 1), (5, 1, 3)])
@pytest.mark.parametrize("name", IMAGES)
def test_a_convolution_says_of_each_window_what_the_model_says(name, shape, opset):
    model = of(*IMAGES[name](), shape=shape)
    proto = to_onnx(model, opset=opset, as_convolution=True, verify=opset <= ALWAYS_LOADABLE)
    assert "Gemm" not in operators(proto)
    assert operators(proto).count("Conv") == len(rows_of(model.network.inference, DENSE))
    dims = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in proto.graph.input]
    assert dims == [["batch", shape[0], "height", "width"]]
    if opset > ALWAYS_LOADABLE:
        return
    channels, height, width = shape
    x = np.random.default_rng(1).standard_normal((3, channels, height + 4, width + 2), np.float32)
    found = run(proto, x)["output"]
    assert found.shape == (3, model.network.n_out, 5, 3)
    for i in range(5):
        for j in range(3):
            expected = model.predict(np.ascontiguousarray(x[:, :, i : i + height, j : j + width]))
            np.testing.assert_allclose(found[:, :, i, j], expected, rtol=1e-4, atol=2e-5)
    (exact,) = run(proto, x[:, :, :height, :width]).values()
    np.testing.assert_allclose(
        exact[:, :, 0, 0],
        model.predict(np.ascontiguousarray(x[:, :, :height, :width])),
        rtol=1e-4,
        atol=2e-5,
    )


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_convolution_with_every_activation(activation):
    model = of(k.Flatten(), k.Dense(6, activation), k.Activation(activation), k.Dense(3), shape=(2, 3, 4))
    if activation == "exponential":  # of an exponential: small weights keep it within what float32 holds
        model.set_weights([0.1 * w for w in model.get_weights()])
    result = verify_onnx(to_onnx(model, as_convolution=True), model)
    assert result.agrees, result
    assert result.tolerance == 1e-5


def test_a_norm_of_what_is_far_from_zero_in_a_convolution():
    model = of(k.Flatten(), k.Dense(4, "relu"), BN(), k.Activation("tanh"), shape=(1, 3, 3))
    model.parameters["batch_normalization/moving_mean"][1] = 500.0
    model.parameters["dense/bias"][1] = 500.0
    proto = to_onnx(model, as_convolution=True)
    assert operators(proto) == ["Conv", "Relu", "Sub", "Mul", "Add", "Tanh"]


@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_labels_of_a_convolution(names):
    model = of(k.Flatten(), k.Dense(3, "softmax"), shape=(1, 3, 4))
    proto = to_onnx(model, as_convolution=True, labels=True, class_names=names)
    found = run(proto, np.random.default_rng(1).standard_normal((2, 1, 5, 9), np.float32))
    assert found["label"].shape == (2, 3, 6)
    numbers = found["output"].argmax(axis=1)
    np.testing.assert_array_equal(found["label"], numbers if names is None else np.array(names, object)[numbers])
    one = of(k.Flatten(), k.Dense(1, "sigmoid"), shape=(1, 3, 4))
    found = run(to_onnx(one, as_convolution=True, labels=True), np.zeros((2, 1, 5, 9), np.float32))
    assert found["label"].shape == (2, 3, 6)


def test_a_doctored_convolution_differs():
    model = of(k.Flatten(), k.Dense(4, "relu"), k.Dense(3), shape=(2, 3, 4))
    proto = to_onnx(model, as_convolution=True)
    assert verify_onnx(proto, model).agrees
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("strides", [1, 2]))
    with pytest.raises((RuntimeError, ValueError)):
        verify_onnx(proto, model)
    proto.graph.node[0].attribute.pop()
    # Swapped channels: the windows show it, and so does the image itself.
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "dense/weight")
    value = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(value[:, ::-1].copy(), weight.name))
    assert not verify_onnx(proto, model).agrees


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([k.Dense(3)], (5,), r"needs an Input\(\(channels, height, width\)\).*the input is \(5,\)"),
        ([k.Flatten(), k.Dense(3)], (4, 5), r"the input is \(4, 5\)"),
        ([k.Dense(3), k.Flatten(), k.Dense(2)], (2, 4, 5), "layer 'dense' is not behind it"),
        ([k.Flatten(), k.LayerNormalization(), k.Dense(3)], (2, 4, 5), "'layer_normalization' works on all pixels"),
        ([k.Flatten(), k.Softmax(), k.Dense(3)], (2, 4, 5), "layer 'softmax' works on all pixels"),
        ([k.Flatten(), BN(), k.ReLU(), k.Dense(3)], (2, 4, 5), "'batch_normalization' works on all pixels"),
        ([k.Flatten(), k.Residual([k.Dense(40)]), k.Dense(3)], (2, 4, 5), "'residual' works on all pixels"),
        ([k.Flatten()], (2, 4, 5), "needs a Dense layer behind the Flatten"),
    ],
)
def test_what_is_no_convolution(layers, shape, message):
    with pytest.raises(ValueError, match=message):
        to_onnx(of(*layers, shape=shape), as_convolution=True)


QUANTIZED = {
    "int8": {"activation_dtype": "int8"},
    "uint8": {"activation_dtype": "uint8"},
    "integer softmax": {"softmax": "integer", "granularity": "per_tensor"},
    "weights alone": {"scheme": "weight_only"},
}


@pytest.mark.parametrize("opset", [13, 17, ALWAYS_LOADABLE])
@pytest.mark.parametrize("way", QUANTIZED)
@pytest.mark.parametrize("name", sorted(set(IMAGES) - {"norm on the image, folded"}))
def test_a_quantized_convolution(name, way, opset):
    model = of(*IMAGES[name](), shape=(2, 3, 4))
    quantized = quantize(model, data(model, 300), **QUANTIZED[way])
    for flavour in ["weight_only"] if way == "weights alone" else ["qdq", "qoperator"]:
        proto = to_onnx(quantized, flavour=flavour, opset=opset, as_convolution=True, labels=True)
        assert not {"Gemm", "QGemm", "QLinearMatMul", "Flatten", "Reshape"} & set(operators(proto))
        result = verify_onnx(proto, quantized, data(model, 500, 1))
        assert result.agrees, result
        if result.integers is not None and not result.saturates:
            assert result.differing_integers <= result.integers / 1000
        x = np.random.default_rng(1).standard_normal((3, 2, 6, 5), np.float32)
        found = run(proto, x)["output"]
        windows = [x[:, :, i : i + 3, j : j + 4] for i in range(4) for j in range(2)]
        expected = np.concatenate([quantized.predict(np.ascontiguousarray(window)) for window in windows])
        flat = found.transpose(2, 3, 0, 1).reshape(expected.shape)
        assert (np.abs(flat - expected).max(axis=-1) > 1e-4 * np.abs(expected).max()).mean() <= 0.05


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"scheme": "dynamic"}, "dynamically quantized layers, as 'dense' is"),
        ({"scheme": "weight_only", "bits": 4}, "weights of 4 bits or in blocks, as layer 'dense' has"),
    ],
)
def test_quantized_layers_that_are_no_convolution(way, message):
    model = of(*IMAGES["hidden layers"](), shape=(2, 3, 4))
    with pytest.raises(ValueError, match=message):
        to_onnx(quantize(model, data(model, 300), **way), as_convolution=True)
    model = of(k.Dense(4, "relu"), k.Dense(3), shape=(5,))
    with pytest.raises(ValueError, match=r"needs an Input.*the input is \(5,\)"):
        to_onnx(quantize(model, data(model, 300)), as_convolution=True)
