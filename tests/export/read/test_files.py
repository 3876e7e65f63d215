"""Files that nobody vouches for: damaged, cyclic, of newer versions, or claiming what is not there."""

import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nbdense import layers as k
from nbdense.export import from_onnx, to_onnx
from nbdense.files import FileFormatError
from nbdense.quant import quantize
from tests.support.onnx_graphs import B, W, graph_model, node
from tests.support.stacks import made, randomise


def small():
    return to_onnx(randomise(made([k.Dense(6, "relu"), k.Dense(3, "softmax")], (4,), "float32")), verify=False)


def test_truncated_files_are_refused_or_whole(tmp_path):
    """At every length: only what lies behind the graph and its opset may be missing, and changes nothing then."""
    content = small().SerializeToString()
    expected = from_onnx(content).get_weights()
    path = tmp_path / "cut.onnx"
    read = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            found = from_onnx(path)
        except FileFormatError as error:
            assert "cut.onnx" in str(error)
            continue
        read += 1
        for one, two in zip(found.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(one, two)
    assert read < 5


def test_flipped_bytes_give_one_kind_of_error():
    """Whatever a byte becomes: a model, or one of the errors that say what is wrong, in memory of the file's size."""
    content = small().SerializeToString()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        try:
            from_onnx(bytes(damaged))
        except ValueError:  # FileFormatError is one
            refused += 1
    assert refused > 100


def mangled(proto, rng):
    """The model with other inputs, operators, attributes or shapes in one to three places."""
    graph = proto.graph
    names = (
        [tensor.name for tensor in graph.initializer] + [name for n in graph.node for name in n.output] + ["", "input"]
    )
    operators = [n.op_type for n in graph.node] + [
        "Add",
        "Mul",
        "Reshape",
        "Gather",
        "Concat",
        "Clip",
        "Squeeze",
        "Where",
    ]
    operators += ["QuantizeLinear", "MatMulInteger", "Transpose", "Shape", "Flatten", "ReduceMean", "Gemm", "Pow"]
    for _ in range(rng.integers(1, 4)):
        victim, kind = graph.node[rng.integers(len(graph.node))], rng.integers(6)
        if kind == 0 and victim.input:
            victim.input[rng.integers(len(victim.input))] = str(rng.choice(names))
        elif kind == 1:
            victim.op_type = str(rng.choice(operators))
        elif kind == 2 and victim.input:
            del victim.input[int(rng.integers(len(victim.input)))]
        elif kind == 3:
            victim.input.append(str(rng.choice(names)))
        elif kind == 4 and victim.attribute:
            attribute = victim.attribute[rng.integers(len(victim.attribute))]
            if attribute.type == onnx.AttributeProto.INT:
                attribute.i = int(rng.choice([0, -1, 1, 2, 5, -7, 100]))
            elif attribute.type == onnx.AttributeProto.FLOAT:
                attribute.f = float(rng.choice([0.0, -1.0, np.nan, np.inf, 1e30]))
        elif kind == 5 and graph.initializer:
            one, two = (graph.initializer[rng.integers(len(graph.initializer))] for _ in range(2))
            name = one.name
            one.CopyFrom(two)
            one.name = name
    return proto


@pytest.mark.parametrize("options", [None, {}, {"scheme": "dynamic"}, {"scheme": "weight_only"}], ids=str)
def test_mangled_graphs_give_one_kind_of_error(options):
    """A model that predicts, or an error that names what is wrong; no warning, no other exception."""
    layers = [k.Dense(6, "gelu"), k.LayerNormalization(), k.Residual([k.Dense(6, "tanh")]), k.Flatten(), k.Dense(2)]
    model = randomise(made(layers, (3, 4), "float32"))
    rng = np.random.default_rng(4)
    x = rng.standard_normal((20, 3, 4)).astype(np.float32)
    content = to_onnx(model if options is None else quantize(model, x, **options), verify=False).SerializeToString()
    refused = 0
    for _ in range(300):
        proto = mangled(onnx.load_model_from_string(content), rng)
        try:
            found = from_onnx(proto)
        except ValueError as error:
            assert str(error).startswith("the ONNX model"), error
            refused += 1
        else:
            assert len(found.predict(np.zeros((2, *found.network.input_shape), np.float32))) == 2
    assert 100 < refused < 300


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 100, b"\x08", b"\x01\x02" + b"\xff" * 200])
def test_what_is_no_onnx_file(content, tmp_path):
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="no.onnx"):
        from_onnx(path)
    with pytest.raises(FileFormatError, match="the ONNX model"):
        from_onnx(content)


def test_newer_and_older_versions():
    proto = small()
    proto.ir_version = int(onnx.IR_VERSION) + 1
    with pytest.raises(FileFormatError, match=r"IR version \d+.*upgrade onnx"):
        from_onnx(proto)
    proto = small()
    proto.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    with pytest.raises(FileFormatError, match=r"opset \d+ of ai.onnx.*upgrade onnx"):
        from_onnx(proto)
    proto.opset_import[0].version = 6
    with pytest.raises(ValueError, match="opset 6; from_onnx reads 7 and later"):
        from_onnx(proto)
    proto = small()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 99))
    with pytest.raises(FileFormatError, match=r"opset 99 of ai.onnx.ml"):
        from_onnx(proto)
    del proto.opset_import[:]
    with pytest.raises(FileFormatError, match="of which opset"):
        from_onnx(proto)
    proto = small()
    proto.opset_import.append(helper.make_opsetid("", 16))
    with pytest.raises(FileFormatError, match="two opsets"):
        from_onnx(proto)


def test_cycles_and_names():
    nodes = [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Identity", "b")]
    with pytest.raises(FileFormatError, match="cycle: .* node"):
        from_onnx(graph_model(nodes, {}))
    with pytest.raises(FileFormatError, match="cycle"):
        from_onnx(graph_model([node("Relu", "y")], {}))
    with pytest.raises(FileFormatError, match="nothing writes the tensor 'h'"):
        from_onnx(graph_model([node("Relu", "h")], {}))
    with pytest.raises(FileFormatError, match="writes 'y', which is another node's"):
        from_onnx(graph_model([node("Relu", "x"), node("Tanh", "x")], {}))
    with pytest.raises(FileFormatError, match="writes 'x', which is another node's"):
        from_onnx(graph_model([node("Relu", "x", "x"), node("Tanh", "x")], {}))
    proto = graph_model([node("Gemm", "x w")], {"w": W})
    proto.graph.initializer.append(proto.graph.initializer[0])
    with pytest.raises(FileFormatError, match="two tensors named 'w'"):
        from_onnx(proto)
    # Nodes out of order are no cycle.
    model = from_onnx(graph_model([node("Relu", "h"), node("Gemm", "x w", "h")], {"w": W}))
    assert [type(layer).__name__ for layer in model.layers] == ["Dense"]


def test_several_inputs_and_none():
    proto = graph_model([node("Add", "x z")], {})
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4]))
    with pytest.raises(ValueError, match="one input, got 'x', 'z'"):
        from_onnx(proto)
    with pytest.raises(ValueError, match="one input, got none"):
        from_onnx(graph_model([node("Relu", "w")], {"w": W}))


def claiming(dims, raw=b"\x00" * 48, kind=TensorProto.FLOAT):
    proto = graph_model([node("MatMul", "x w")], {"w": W})
    tensor = proto.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.raw_data, tensor.data_type = raw, kind
    return proto


def test_huge_claims_take_no_memory():
    tracemalloc.start()
    claims = [
        claiming([2**40, 2**20]),
        claiming([4, -3]),
        claiming([2**62, 2**62, 2**62]),
        claiming([4, 3], b""),
        claiming([4, 3], kind=TensorProto.INT8),
        claiming([4, 3], b"\x00" * 47),
    ]
    for proto in claims:
        with pytest.raises(FileFormatError, match="tensor 'w'"):
            from_onnx(proto)
    sparse = graph_model([node("MatMul", "x w")], {})
    made_sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [2**30, 2**10],
    )
    sparse.graph.sparse_initializer.append(made_sparse)
    with pytest.raises(FileFormatError, match="sparse tensor 'w' claims"):
        from_onnx(sparse)
    with pytest.raises(FileFormatError, match="claims rows of shape"):
        from_onnx(graph_model([node("Relu", "x")], {}, (2**40,)))
    rows, columns = np.zeros((2**14, 1), "f"), np.zeros((1, 2**14), "f")
    folded = [node("Add", "r c", "w"), node("MatMul", "x w")]
    with pytest.raises(FileFormatError, match="a constant of 268435456 elements"):
        from_onnx(graph_model(folded, {"r": rows, "c": columns}, (2**14,)))
    filled = [node("ConstantOfShape", "s", "w"), node("MatMul", "x w")]
    with pytest.raises(FileFormatError, match="would make a constant"):
        from_onnx(graph_model(filled, {"s": np.array([2**31, 2**31])}))
    with pytest.raises(ValueError, match="Expand node .* does not read this operator"):
        from_onnx(
            graph_model(
                [node("Expand", "c s", "w"), node("Add", "x w")], {"c": np.zeros(1, "f"), "s": np.array([2**40])}
            )
        )
    many = graph_model([node("Relu", "x", "t0")] + [node("Relu", f"t{i}", f"t{i + 1}") for i in range(20000)], {})
    with pytest.raises(FileFormatError, match="20001 nodes"):
        from_onnx(many)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


def test_sparse_initializers_are_read():
    kernel = np.where(np.arange(12).reshape(4, 3) % 4 == 1, W, 0)
    places = np.flatnonzero(kernel)
    proto = graph_model([node("MatMul", "x w")], {})
    values = helper.make_tensor("w", TensorProto.FLOAT, [places.size], kernel.reshape(-1)[places])
    for indices in (places, np.argwhere(kernel)):
        held = numpy_helper.from_array(indices.astype(np.int64), "i")
        del proto.graph.sparse_initializer[:]
        proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, held, [4, 3]))
        np.testing.assert_array_equal(from_onnx(proto).get_weights()[0], kernel)
    bad = helper.make_tensor("i", TensorProto.INT64, [places.size], np.full(places.size, 12))
    proto.graph.sparse_initializer[0].indices.CopyFrom(bad)
    with pytest.raises(FileFormatError, match="outside of its shape"):
        from_onnx(proto)


def with_data(folder, location="data.bin", offset=0, length=None, name="model.onnx"):
    """A model whose weights lie beside it."""
    proto = graph_model([node("Gemm", "x w b")], {"w": W, "b": B})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    said = {"location": location, "offset": str(offset), "length": str(W.nbytes if length is None else length)}
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def test_data_beside_the_file(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "data.bin").write_bytes(b"12345678" + W.tobytes())
    (folder / "deep" / "data.bin").write_bytes(W.tobytes())
    for path in (with_data(folder, offset=8), with_data(folder, "deep/data.bin"), with_data(folder, "./deep/data.bin")):
        np.testing.assert_array_equal(from_onnx(path).get_weights()[0], W)
    with pytest.raises(FileFormatError, match="give from_onnx the path"):
        from_onnx(path.read_bytes())
    with pytest.raises(FileFormatError, match="claims 48 bytes, as 48 from 9"):
        from_onnx(with_data(folder, offset=9))
    with pytest.raises(FileFormatError, match="claims 48 bytes, as 40"):
        from_onnx(with_data(folder, length=40))
    with pytest.raises(FileFormatError, match="offset and length"):
        from_onnx(with_data(folder, offset=-8))
    with pytest.raises(FileFormatError, match="offset and length"):
        from_onnx(with_data(folder, offset="9" * 5000))
    with pytest.raises(FileFormatError, match="is missing"):
        from_onnx(with_data(folder, "none.bin"))


def test_data_outside_of_the_folder_is_not_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    outside = [str(secret), "../secret.bin", "a/../../secret.bin", "link.bin", "up/secret.bin", "", ".", "..", "~/x"]
    outside += ["C:\\secret.bin", "\\\\host\\share", "..\\secret.bin", "C:secret.bin", "a\0b", "/dev/zero"]
    for location in outside:
        with pytest.raises(FileFormatError, match="not inside the model's folder|is missing"):
            from_onnx(with_data(folder, location))


def test_one_small_file_for_many_tensors(tmp_path):
    """The same bytes claimed again and again would be memory without end."""
    (tmp_path / "data.bin").write_bytes(b"\x00" * 4096)
    proto = graph_model([node("Relu", "x")], {})
    for i in range(1000):
        tensor = TensorProto(name=f"t{i}", data_type=TensorProto.FLOAT, dims=[1024], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="data.bin")
        proto.graph.initializer.append(tensor)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(FileFormatError, match="all tensors together"):
        from_onnx(path)


def test_graphs_inside_nodes_and_functions_are_refused():
    inner = helper.make_graph([node("Relu", "x", "z")], "inner", [], [helper.make_tensor_value_info("z", 1, None)])
    with pytest.raises(ValueError, match="If node 'the If'.* does not read .*graph of its own"):
        choice = node("If", "c", "y", then_branch=inner, else_branch=inner)
        choice.output[0] = "h"
        from_onnx(graph_model([choice, node("Add", "x h")], {"c": np.array(True)}))
    with pytest.raises(ValueError, match="Relu node 'the Relu'.* does not read .*graph of its own, 'body'"):
        from_onnx(graph_model([node("Relu", "x", body=inner)], {}))
    proto = graph_model([node("Relu", "x")], {})
    proto.functions.append(
        helper.make_function("", "Relu", ["a"], ["b"], [node("Neg", "a", "b")], [helper.make_opsetid("", 17)])
    )
    with pytest.raises(ValueError, match="Relu node 'the Relu' calls a function"):
        from_onnx(proto)


def test_wrong_attributes_and_inputs_are_the_checkers():
    for bad in (
        node("Gemm", "x"),
        node("Relu", "x x"),
        node("Relu", "x", alpha="loud"),
        node("Gemm", "x w", alpha=[1, 2]),
    ):
        with pytest.raises(FileFormatError, match="not a valid ONNX model"):
            from_onnx(graph_model([bad], {"w": W}))


def test_deep_nests_of_operators_end(tmp_path):
    """Elementwise mazes: bounded work, and an error or a model."""
    nodes, source = [node("Exp", "x", "t0")], "t0"
    for i in range(2000):
        nodes.append(node("Mul", f"{source} {source if i % 2 else 'x'}", f"t{i + 1}"))
        source = f"t{i + 1}"
    with pytest.raises(ValueError, match="no layer does"):
        from_onnx(graph_model([*nodes, node("Log", source)], {}))
