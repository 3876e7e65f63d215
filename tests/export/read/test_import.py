"""from_onnx on graphs of our own and built by hand: what it makes of them, and what it refuses by name."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import nbdense
from nbdense import layers as k
from nbdense.activations import ACTIVATIONS
from nbdense.export import from_onnx, to_onnx
from nbdense.export.graph.opsets import newest_opset
from nbdense.files import FileFormatError
from tests.reference import naive
from tests.support.onnx_graphs import B, W, agree, graph_model, kinds, node, normal, run
from tests.support.stacks import MORE_STACKS, STACKS, data, made, model_of, randomise

ALL = STACKS | MORE_STACKS


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("opset", [13, 17, newest_opset()])
def test_round_trip(name, opset):
    model = model_of(name)
    again = from_onnx(to_onnx(model, opset=opset, verify=False))
    x = data(model, 9)
    expected, found = model.predict(x), again.predict(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    assert again.network.input_shape == model.network.input_shape


def test_what_is_dense_comes_back_exactly(tmp_path):
    layers = [k.Dense(8, "relu", name="hidden"), k.BatchNormalization(name="norm"), k.Residual([k.Dense(8, "gelu")])]
    model = randomise(made([*layers, k.Dense(3, "softmax")], (5,), "float32"))
    path = tmp_path / "model.onnx"
    nbdense.set_random_seed(0)  # what it learns below does not depend on other tests
    to_onnx(model, path, class_names=["a", "b", "c"], verify=False)
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), onnx.load(path)):
        again = from_onnx(source)
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        assert again.class_names == ["a", "b", "c"]
    assert [layer.name for layer in again.layers][:2] == ["hidden", "norm"]
    for one, two in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # ... and is an ordinary model: it learns, is saved, and goes out again.
    again.compile("adam", "sparse_categorical_crossentropy")
    history = again.fit(x, np.arange(40) % 3, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    again.save(tmp_path / "model.safetensors")
    assert nbdense.load_model(tmp_path / "model.safetensors").count_params() == model.count_params()
    assert to_onnx(again) is not None


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"linear"}))
def test_activations_come_back(name):
    chosen = ACTIVATIONS[name]
    if chosen.parameters:
        alphas = {"hard_tanh": (-0.5, 0.75), "softplus_beta": (0.75, 8.0), "thresholded_relu": (0.75, 0.25, 2.5)}
        chosen = chosen.with_alpha(alphas.get(name, (0.75, -0.5) if name == "threshold" else 0.75))
    model = randomise(made([k.Dense(6, chosen), k.Dense(3)], (4,), "float32"))
    for opset in (13, newest_opset()):
        again = from_onnx(to_onnx(model, opset=opset, verify=False))
        assert again.layers[0].activation == chosen
        x = data(model, 30)
        np.testing.assert_array_equal(again.predict(x), model.predict(x))


HALF, ONE, ROOT = np.float32(0.5), np.float32(1), np.float32(np.sqrt(0.5))
DECOMPOSED = {
    # name: (what it is, nodes, constants)
    "torch's gelu": (
        "gelu",
        [
            node("Div", "x root2", "a"),
            node("Erf", "a", "b"),
            node("Add", "b one", "c"),
            node("Mul", "x c", "d"),
            node("Mul", "d half"),
        ],
        {"root2": np.float32(np.sqrt(2)), "one": ONE, "half": HALF},
    ),
    "gelu halved first": (
        "gelu",
        [
            node("Mul", "x root", "a"),
            node("Erf", "a", "b"),
            node("Add", "one b", "c"),
            node("Mul", "half c", "d"),
            node("Mul", "d x"),
        ],
        {"root": ROOT, "one": ONE, "half": HALF},
    ),
    "gelu by tanh and a power": (
        "gelu_tanh",
        [
            node("Pow", "x three", "a"),
            node("Mul", "a c1", "b"),
            node("Add", "x b", "c"),
            node("Mul", "c c2", "d"),
            node("Tanh", "d", "e"),
            node("Add", "e one", "f"),
            node("Mul", "half x", "g"),
            node("Mul", "g f"),
        ],
        {
            "three": np.float32(3),
            "c1": np.float32(0.044715),
            "c2": np.float32(np.sqrt(2 / np.pi)),
            "one": ONE,
            "half": HALF,
        },
    ),
    "silu": ("silu", [node("Sigmoid", "x", "a"), node("Mul", "a x")], {}),
    "silu by division": (
        "silu",
        [node("Neg", "x", "a"), node("Exp", "a", "b"), node("Add", "b one", "c"), node("Div", "x c")],
        {"one": ONE},
    ),
    "sigmoid by exp": (
        "sigmoid",
        [node("Neg", "x", "a"), node("Exp", "a", "b"), node("Add", "one b", "c"), node("Reciprocal", "c")],
        {"one": ONE},
    ),
    "mish": ("mish", [node("Softplus", "x", "a"), node("Tanh", "a", "b"), node("Mul", "x b")], {}),
    "hard_swish by clip": (
        "hard_swish",
        [node("Add", "x three", "a"), node("Clip", "a zero six", "b"), node("Mul", "x b", "c"), node("Div", "c six")],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
    ),
    "hard_sigmoid times x": (
        "hard_swish",
        [node("HardSigmoid", "x", "a", alpha=1 / 6, beta=0.5), node("Mul", "x a")],
        {},
    ),
    "leaky relu by max": ("leaky_relu", [node("Mul", "x slope", "a"), node("Max", "a x")], {"slope": np.float32(0.1)}),
    "elu by where": (
        "elu",
        [
            node("Exp", "x", "a"),
            node("Sub", "a one", "b"),
            node("Mul", "b alpha", "c"),
            node("Less", "x zero", "d"),
            node("Where", "d c x"),
        ],
        {"one": ONE, "alpha": np.float32(0.7), "zero": np.float32(0)},
    ),
    "softplus by log": (
        "softplus",
        [node("Exp", "x", "a"), node("Add", "a one", "b"), node("Log", "b")],
        {"one": ONE},
    ),
}


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decompositions_are_known_by_their_values(name):
    expected, nodes, constants = DECOMPOSED[name]
    moved = [helper.make_node("Gemm", ["input", "weights", "offsets"], ["x"]), *nodes]
    proto = graph_model(moved, {"weights": normal((4, 3)).astype("f"), "offsets": B, **constants})
    proto.graph.input[0].name = "input"
    model = from_onnx(proto)
    assert kinds(model) == ["Dense"] and model.layers[0].activation.name == expected
    x = normal((60, 4)).astype(np.float32) * 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(model.predict(x), session.run(None, {"input": x})[0], rtol=2e-5, atol=5e-6)
    if expected in ("leaky_relu", "elu"):
        assert model.layers[0].activation.alpha == {"leaky_relu": 0.1, "elu": 0.7}[expected]


def test_what_is_almost_an_activation_is_refused():
    """The quick gelu, x sigmoid(1.702 x), is a hundredth away from gelu: it is none."""
    nodes = [node("Mul", "x c", "a"), node("Sigmoid", "a", "b"), node("Mul", "x b")]
    with pytest.raises(ValueError, match="Mul node 'the Mul'"):
        from_onnx(graph_model(nodes, {"c": np.float32(1.702)}))


ONE_NODE = {
    "gemm": (node("Gemm", "x w b", alpha=0.5, beta=-2.0), {"w": W, "b": B}, ["Dense"]),
    "gemm transB": (node("Gemm", "x w", transB=1), {"w": W.T.copy()}, ["Dense"]),
    "gemm of one bias": (node("Gemm", "x w b"), {"w": W, "b": B[:1]}, ["Dense"]),
    "gemm of a row": (node("Gemm", "x w b"), {"w": W, "b": B[None]}, ["Dense"]),
    "matmul": (node("MatMul", "x w"), {"w": W}, ["Dense"]),
    "selu of other numbers": (node("Selu", "x", alpha=2.0, gamma=3.0), {}, ["Activation", "BatchNormalization"]),
    "clip": (node("Clip", "x a b"), {"a": np.float32(-1), "b": np.float32(2)}, None),
    "clip above": (node("Clip", "x  b".replace("  ", " a ")), {"a": np.float32(-np.inf), "b": np.float32(1.5)}, None),
    "clip below": (node("Clip", "x a"), {"a": np.float32(-0.5)}, None),
    "clip of nothing": (node("Clip", "x"), {}, ["Activation"]),
    "max with a number": (node("Max", "x a"), {"a": np.float32(0.3)}, None),
    "min with a number": (node("Min", "a x"), {"a": np.float32(0.3)}, None),
    "prelu of one slope": (node("PRelu", "x a"), {"a": np.float32([0.3])}, ["Activation"]),
    "hard sigmoid as Keras 2 had it": (node("HardSigmoid", "x"), {}, ["BatchNormalization", "Activation"]),
    "celu": (node("Celu", "x", alpha=0.6), {}, None),
    "neg": (node("Neg", "x"), {}, ["BatchNormalization"]),
    "a constant less x": (node("Sub", "a x"), {"a": np.float32([1, 2, 3, 4])}, ["BatchNormalization"]),
    "divided": (node("Div", "x a"), {"a": np.float32([1, 2, 3, 4])}, ["BatchNormalization"]),
    "twice": (node("Add", "x x"), {}, ["BatchNormalization"]),
    "batch norm": (
        node("BatchNormalization", "x g b m v", epsilon=0.01),
        {
            "g": np.float32([1, 2, 3, 4]),
            "b": np.float32([0, 1, 0, 1]),
            "m": np.float32([9, 0, 1, 0]),
            "v": np.ones(4, "f"),
        },
        ["BatchNormalization"],
    ),
    "layer norm": (
        node("LayerNormalization", "x g b", epsilon=0.01, axis=1),
        {"g": np.float32([1, 2, 3, 4]), "b": np.float32([0, 1, 0, 1])},
        ["LayerNormalization"],
    ),
    "softmax": (node("Softmax", "x"), {}, ["Activation"]),
    "identity": (node("Identity", "x"), {}, ["Activation"]),
    "cast": (node("Cast", "x", to=TensorProto.FLOAT), {}, ["Activation"]),
    "dropout": (node("Dropout", "x r"), {"r": np.float32(0.3)}, ["Dropout"]),
}


@pytest.mark.parametrize("name", ONE_NODE)
def test_one_node(name):
    made_node, constants, expected = ONE_NODE[name]
    model = agree(graph_model([made_node], constants))
    assert expected is None or kinds(model) == expected


def test_affine_steps_go_into_dense_layers():
    """In front, behind, and as skl2onnx's Scaler."""
    constants = {"m": np.float32([1, 2, 3, -1]), "d": np.float32([2, 1, 1.5, 4]), "w": W, "b": B, "s": B + 3}
    nodes = [node("Sub", "x m", "a"), node("Div", "a d", "h"), node("MatMul", "h w", "c"), node("Add", "c b", "e")]
    model = agree(graph_model([*nodes, node("Mul", "e s")], constants))
    assert kinds(model) == ["Dense"]
    scaler = helper.make_node("Scaler", ["x"], ["h"], domain="ai.onnx.ml", offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5] * 4)
    proto = graph_model([scaler, node("Gemm", "h w b")], constants, domains=[("ai.onnx.ml", 3)])
    assert kinds(agree(proto)) == ["Dense"]
    # Zero, one and twice: nothing is left of what does nothing, and a kernel that nothing touches keeps its bits.
    nodes = [node("Add", "x zero", "a"), node("MatMul", "a w", "h"), node("Mul", "h one", "c"), node("Add", "c b")]
    model = agree(graph_model(nodes, {"zero": np.zeros(4, "f"), "one": ONE, "w": W, "b": B}))
    np.testing.assert_array_equal(model.get_weights()[0], W)
    np.testing.assert_array_equal(model.get_weights()[1], B)


def test_standardisation_of_data_far_from_zero_stays():
    """x / d - m / d would cancel: the digits of what nobody scaled would be lost."""
    mean, deviation = np.float32([1e4, -3e3, 5e5, 1e3]), np.float32([1, 0.5, 10, 0.1])
    nodes = [node("Sub", "x m", "a"), node("Div", "a d", "h"), node("Gemm", "h w b")]
    proto = graph_model(nodes, {"m": mean, "d": deviation, "w": W, "b": B})
    model = from_onnx(proto)
    assert kinds(model) == ["BatchNormalization", "Dense"] and not model.layers[0].trainable
    x = (normal((80, 4)) * deviation + mean).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), run(proto, x), rtol=1e-5, atol=1e-5)


def test_residual_blocks():
    constants = {"w": W, "b": B, "u": normal((4, 4)).astype("f"), "p": W[::-1].copy(), "q": B * 2}
    nodes = [node("MatMul", "x u", "a"), node("Relu", "a", "h"), node("Add", "x h", "c"), node("Gemm", "c w b")]
    assert kinds(agree(graph_model(nodes, constants))) == ["Residual", "Dense"]
    nodes = [node("Gemm", "x w b", "a"), node("Tanh", "a", "h"), node("Gemm", "x p q", "c"), node("Add", "h c")]
    model = agree(graph_model(nodes, constants))  # a projection with a bias
    assert kinds(model) == ["Residual"]
    nodes = [node("Gemm", "x u", "a"), node("Gemm", "x u", "h"), node("Tanh", "h", "c"), node("Add", "a c")]
    with pytest.raises(ValueError, match="Add node 'the Add': the branches"):
        from_onnx(graph_model(nodes, constants))


def test_chains_of_blocks_are_not_slow_and_nests_are_bounded():
    nodes, source = [], "x"
    for i in range(400):
        nodes += [node("Tanh", source, f"a{i}"), node("Add", f"{source} a{i}", f"s{i}")]
        source = f"s{i}"
    model = from_onnx(graph_model([*nodes, node("Identity", source)], {}))
    assert len(model.layers) == 400
    nodes, source = [node("Tanh", "x", "t0")], "t0"
    for i in range(60):  # x + tanh(x + tanh(...)): each starts where the whole does
        nodes += [node("Add", f"x {source}", f"s{i}"), node("Tanh", f"s{i}", f"t{i + 1}")]
        source = f"t{i + 1}"
    with pytest.raises(ValueError, match="no layer does|nested|the branches"):
        from_onnx(graph_model([*nodes, node("Add", f"x {source}")], {}))


def test_shapes():
    flat = {"w": normal((6, 3)).astype("f"), "shape": np.array([0, -1])}
    assert kinds(agree(graph_model([node("Reshape", "x shape", "h"), node("MatMul", "h w")], flat, (2, 3)))) == [
        "Flatten",
        "Dense",
    ]
    # As torch writes x.view(x.size(0), -1).
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axes", "n1"),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "x target", "h"),
        node("MatMul", "h w"),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "w": flat["w"]}
    assert kinds(agree(graph_model(nodes, constants, (2, 3)))) == ["Flatten", "Dense"]
    # There and back, and a row of positions that is a mean image in front of a flatten.
    nodes = [
        node("Reshape", "x there", "a"),
        node("Sub", "a mean", "h"),
        node("Flatten", "h", "c"),
        node("MatMul", "c w"),
    ]
    constants = {"there": np.array([-1, 2, 3]), "mean": normal((2, 3)).astype("f"), "w": flat["w"]}
    assert kinds(agree(graph_model(nodes, constants, (6,)))) == ["Dense"]
    nodes = [node("Gemm", "x w", "h"), node("Squeeze", "h axes")]
    assert from_onnx(graph_model(nodes, {"w": W[:, :1], "axes": np.array([1])})).predict(np.ones((2, 4))).shape == (
        2,
        1,
    )
    # The width is the first weights' where the file leaves it open.
    nodes = [node("Relu", "x", "h"), node("MatMul", "h w")]
    for shape in (("width",), None):
        assert from_onnx(graph_model(nodes, {"w": W}, shape)).network.input_shape == (4,)
    # A graph of a fixed batch takes any.
    proto = graph_model(
        [node("Reshape", "x shape", "h"), node("MatMul", "h w")], {**flat, "shape": np.array([7, 6])}, (2, 3)
    )
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    assert from_onnx(proto).predict(np.ones((3, 2, 3))).shape == (3, 3)


@pytest.mark.parametrize("order", ["rest first", "rest last"])
@pytest.mark.parametrize("activation", ["Sigmoid", "HardSigmoid"])
def test_binary_classifiers_keep_both_columns(order, activation):
    nodes = [node("Gemm", "x w b", "z"), node(activation, "z", "p"), node("Sub", "one p", "r")]
    nodes.append(node("Concat", "r p" if order == "rest first" else "p r", axis=-1))
    model = agree(graph_model(nodes, {"w": W[:, :1], "b": B[:1], "one": ONE}))
    if activation == "Sigmoid":
        assert kinds(model) == ["Dense"] and model.layers[0].activation.name == "softmax"


def test_dtypes():
    constants = {"w": W.astype("f8"), "b": B.astype("f8")}
    model = agree(
        graph_model([node("Gemm", "x w b", "h"), node("Tanh", "h")], constants, kind=np.float64), kind=np.float64
    )
    assert model.dtype == np.float64
    np.testing.assert_array_equal(model.get_weights()[0], constants["w"])
    halves = {"w": W.astype("f2"), "b": B.astype("f2")}
    model = from_onnx(graph_model([node("Gemm", "x w b")], halves, kind=np.float16))
    assert model.dtype == np.float32
    np.testing.assert_array_equal(model.get_weights()[0], halves["w"].astype("f4"))
    # Whole numbers in, through a Cast.
    proto = graph_model([node("Cast", "x", "h", to=1), node("MatMul", "h w")], {"w": W}, kind=np.float32)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    np.testing.assert_allclose(
        from_onnx(proto).predict(np.arange(8).reshape(2, 4)), np.arange(8).reshape(2, 4) @ W, atol=1e-5
    )


def test_layer_norm_of_core_operators_in_other_forms():
    gamma, beta = B[:1].repeat(4) + 2, np.arange(4, dtype=np.float32)
    nodes = [
        node("ReduceMean", "x", "m", axes=[1], keepdims=1),
        node("Sub", "x m", "c"),
        node("Pow", "c two", "q"),
        node("ReduceMean", "q", "v", axes=[-1], keepdims=1),
        node("Add", "eps v", "e"),
        node("Sqrt", "e", "s"),
        node("Reciprocal", "s", "r"),
        node("Mul", "r c", "n"),
        node("Mul", "n g", "h"),
        node("Add", "h b"),
    ]
    constants = {"two": np.float32(2), "eps": np.float32(0.02), "g": gamma, "b": beta}
    model = agree(graph_model(nodes, constants))
    assert kinds(model) == ["LayerNormalization"]
    assert model.layers[0].epsilon == float(np.float32(0.02))


@pytest.mark.parametrize("spelling", ["rsqrt", "power", "over root", "scale first", "operator"])
def test_rms_norm_as_others_write_it(spelling):
    """The first is that of torch's exporters, where the opset has no operator."""
    scale = np.float32([1.5, -2.0, 0.5, 3.0])
    squares = [
        node("Pow", "x two", "q"),
        node("ReduceMean", "q", "v", axes=[-1], keepdims=1),
        node("Add", "v eps", "e"),
    ]
    root = [*squares, node("Sqrt", "e", "s")]
    nodes = {
        "rsqrt": [*root, node("Reciprocal", "s", "r"), node("Mul", "x r", "n"), node("Mul", "n g")],
        "power": [*squares, node("Pow", "e minus_half", "r"), node("Mul", "r x", "n"), node("Mul", "g n")],
        "over root": [*root, node("Div", "x s", "n"), node("Mul", "n g")],
        "scale first": [*root, node("Div", "g s", "n"), node("Mul", "n x")],
        "operator": [node("RMSNormalization", "x g", epsilon=0.02)],
    }[spelling]
    constants = {"two": np.float32(2), "minus_half": np.float32(-0.5), "eps": np.float32(0.02), "g": scale}
    used = {name for each in nodes for name in each.input}
    constants = {name: value for name, value in constants.items() if name in used}
    proto = graph_model(nodes, constants, opset=23 if spelling == "operator" else 17)
    model = from_onnx(proto)
    assert kinds(model) == ["RMSNormalization"]
    assert model.layers[0].epsilon == float(np.float32(0.02))
    x = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(model.predict(x), naive.rms_norm(x, scale.astype(float), 0.02), atol=1e-5)


def test_outputs_are_chosen_or_named():
    nodes = [node("Gemm", "x w b", "z"), node("Softmax", "z", "y"), node("ArgMax", "y", "label", axis=1)]
    proto = graph_model(nodes, {"w": W, "b": B}, outputs=("label", "y"))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert from_onnx(proto).layers[0].activation.name == "softmax"
    assert from_onnx(proto, output="z").layers[0].activation.name == "linear"
    with pytest.raises(ValueError, match="output='w' must name a tensor"):
        from_onnx(proto, output="w")
    del proto.graph.output[1]
    with pytest.raises(ValueError, match="none of its outputs"):
        from_onnx(proto)
    two = graph_model(nodes[:2], {"w": W, "b": B}, outputs=("z", "y"))
    with pytest.raises(ValueError, match="several of its outputs .'z', 'y'."):
        from_onnx(two)


def test_files_with_labels_of_ours():
    """The label branch is left out; class names stay."""
    assert nbdense.from_onnx is from_onnx
    model = randomise(made([k.Dense(5, "relu"), k.Dense(3, "softmax")], (4,), "float32"))
    for names in (None, ["a", "b", "c"]):
        proto = to_onnx(model, labels=True, class_names=names)
        assert len(proto.graph.output) == 2
        again = from_onnx(proto)
        assert again.class_names == names
        np.testing.assert_array_equal(again.predict(data(model, 9)), model.predict(data(model, 9)))


def test_data_beside_our_own_files(tmp_path, monkeypatch):
    model = randomise(made([k.Dense(40, "relu"), k.Dense(3)], (30,), "float32"))
    proto = to_onnx(model)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert (tmp_path / "m.data").stat().st_size > 4000
    np.testing.assert_array_equal(from_onnx(tmp_path / "m.onnx").predict(data(model, 9)), model.predict(data(model, 9)))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(from_onnx("m.onnx").predict(data(model, 9)), model.predict(data(model, 9)))


REFUSED = {
    "an operator": (node("Conv", "x w"), {"w": W}, "Conv node 'the Conv': from_onnx does not read"),
    "a custom domain": (
        helper.make_node("Gemm", ["x", "w"], ["y"], name="n", domain="my.own"),
        {"w": W},
        "my.own.Gemm node 'n'",
    ),
    "an unnamed node": (helper.make_node("Conv", ["x", "w"], ["y"]), {"w": W}, "Conv node that writes 'y'"),
    "weights of the data": (
        node("MatMul", "w x"),
        {"w": W[:, :1].T.copy()},
        "MatMul node 'the MatMul': its input 0",
    ),
    "rows as columns": (node("Gemm", "x w", transA=1), {"w": W}, "transA must be 0"),
    "weights that do not fit": (node("MatMul", "x w"), {"w": W.T.copy()}, "do not fit rows"),
    "integers as weights": (node("MatMul", "x w"), {"w": np.ones((4, 2), np.int32)}, "real numbers"),
    "weights of positions": (node("MatMul", "x w"), {"w": np.ones((2, 4, 2), "f")}, "matrix"),
    "a constant of rows": (node("Add", "x c"), {"c": np.arange(8, dtype="f").reshape(2, 4)}, "the same for all rows"),
    "a constant that widens": (node("Add", "x c"), {"c": np.ones((2, 1, 4), "f")}, "more axes"),
    "a logarithm": (node("Log", "x"), {}, "Log node 'the Log': no layer does"),
    "a slope for each column": (node("PRelu", "x c"), {"c": np.float32([1, 2, 3, 4])}, "one constant number"),
    "an odd shrink": (node("Shrink", "x", lambd=0.5, bias=0.1), {}, "Shrink node 'the Shrink': its bias must be 0 or"),
    "softmax of rows": (node("Softmax", "x", axis=0), {}, "axis 0"),
    "a clip to nothing": (node("Clip", "x a b"), {"a": np.float32(2), "b": np.float32(2)}, "lower bound must be below"),
    "rows that mix": (node("Reshape", "x s"), {"s": np.array([2, -1])}, "apart"),
    "rows that turn": (node("Transpose", "x"), {}, "perm"),
    "a matrix of columns": (node("Reshape", "x s"), {"s": np.array([0, 2, 2])}, "layers only flatten"),
    "integers of the data": (node("Cast", "x", to=TensorProto.INT64), {}, "cast real numbers to a floating-point type"),
    "training": (
        node("BatchNormalization", "x g g g g", training_mode=1),
        {"g": np.ones(4, "f")},
        "training mode",
    ),
    "no variance": (node("BatchNormalization", "x g g g v"), {"g": np.ones(4, "f"), "v": -np.ones(4, "f")}, "variance"),
    "strings": (node("Add", "x c"), {"c": np.array(["a"], object)}, "type object"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_layer_is_refused_by_name(what):
    made_node, constants, message = REFUSED[what]
    domains = [(made_node.domain, 1)] if made_node.domain else []
    with pytest.raises(ValueError, match=message) as found:
        from_onnx(graph_model([made_node], constants, domains=domains))
    assert not isinstance(found.value, FileFormatError)


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a path, bytes or a ModelProto, got int"):
        from_onnx(3)
    with pytest.raises(FileNotFoundError, match="none.onnx"):
        from_onnx(tmp_path / "none.onnx")
