"""Networks to write as ONNX, graphs to read, and what onnxruntime makes of them."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from nbdense import activations
from nbdense.export import from_onnx
from nbdense.export.graph.checks import serialize
from nbdense.network.builder import NetworkBuilder

ALWAYS_LOADABLE = 21  # what the oldest onnxruntime that pyproject.toml allows loads; 1.31 was seen to load up to 26


def network(sizes, names, seed=0, dtype=np.float32, gain=1.0, bias=True):
    """A chain of dense rows d0, d1, .. with seeded weights."""
    generator = np.random.default_rng(seed)
    builder = NetworkBuilder(sizes[0], dtype)
    for i, (n_in, n_out, name) in enumerate(zip(sizes, sizes[1:], names, strict=False)):
        value = generator.standard_normal((n_in, n_out)) * gain / np.sqrt(n_in)
        kernel = builder.parameter(f"d{i}/kernel", value.astype(dtype))
        offset = builder.parameter(f"d{i}/bias", generator.standard_normal(n_out).astype(dtype) / 4) if bias else -1
        builder.dense(f"d{i}", n_out, activations.get(name), kernel, offset)
    return builder.finish()


def rows(n_in, count=200, seed=1):
    return np.random.default_rng(seed).standard_normal((count, n_in), np.float32)


def operators(model):
    return [node.op_type for node in model.graph.node]


def optimised(model, folder):
    """Operators of the graph that onnxruntime really runs."""
    path = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    return operators(onnx.load(path))


def graph_model(nodes, constants, shape=(4,), out=None, opset=17, kind=np.float32, domains=(), outputs=("y",)):
    """A model with input "x" [batch, *shape]; constants by name, as arrays."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    batch = ["batch"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, batch + list(shape) if shape is not None else None)],
        [helper.make_tensor_value_info(name, element, out) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", opset), *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def node(operator, inputs, output="y", **attributes):
    name = f"the {operator}" if output == "y" else f"{operator} of {output}"
    return helper.make_node(operator, inputs.split(), [output], name=name, **attributes)


def run(proto, x):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def agree(proto, rows=50, spread=3.0, atol=1e-6, kind=np.float32):
    """The imported model, which predicts as onnxruntime does."""
    model = from_onnx(proto)
    x = (np.random.default_rng(3).standard_normal((rows, *model.network.input_shape)) * spread).astype(kind)
    expected, found = run(proto, x), model.predict(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol * max(1.0, float(np.abs(expected).max())))
    return model


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def normal(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


W = normal((4, 3)).astype(np.float32)
B = normal(3, 2).astype(np.float32)
