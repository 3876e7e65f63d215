"""ONNX's own node cases (onnx.backend.test) through from_onnx, wherever their shape is a dense network's.

What a case gives beside its first input is bound as constants. A case runs if from_onnx takes it; why another does not
is a reason out of a short list, and the counts are held.
"""

import dataclasses
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nbdense.export import from_onnx

ONNX = tuple(int(part) for part in onnx.__version__.split(".")[:2])
# Of tensors that NumPy has a type for: all releases of onnx read these alike.
READABLE = {helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in np.typecodes["AllInteger"] + "?efd"}


def loaded(case):
    """The case with its model and data, which older releases of onnx leave in files."""
    if case.model is not None:
        return case
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    kinds = {entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)}
    data = []
    for way in ("input", "output") if kinds <= READABLE else ():
        files = sorted((folder / "test_data_set_0").glob(f"{way}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
        data.append([numpy_helper.to_array(onnx.load_tensor(file)) for file in files])
    return dataclasses.replace(case, model=model, data_sets=[tuple(data)])


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cases of other operators overflow on purpose while they are made
    from onnx.backend.test.loader import load_model_tests

    CASES = {case.name: case for case in map(loaded, load_model_tests(kind="node"))}

# The operators that are asked for; of Gelu's and others' decompositions ("expanded" cases) all that they are made of.
OPERATORS = {
    *("Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Relu", "Sigmoid", "Tanh", "Softmax", "Elu", "LeakyRelu", "Selu"),
    *("Softplus", "HardSigmoid", "HardSwish", "Gelu", "Clip", "BatchNormalization", "LayerNormalization", "Flatten"),
    *("Reshape", "Identity", "Dropout", "Cast", "Scaler", "QuantizeLinear", "DequantizeLinear", "QLinearMatMul"),
    *("MatMulInteger", "Mish", "Swish", "Celu", "PRelu", "Max", "Min", "Neg", "Squeeze", "Unsqueeze", "Transpose"),
}
EXPANDED = {"gelu", "elu", "selu", "leakyrelu", "hardsigmoid", "hardswish", "softplus", "relu", "mish", "swish", "clip"}
READ = {"float32", "float16", "int8", "uint8"}
# Why a case is no dense network's: a part of the error, and what it says of the case.
REASONS = {
    "none of its outputs": "gives integers",
    "the same for all rows": "a constant for each row of the batch",
    "keeps the rows of data apart": "mixes the rows of the batch",
    "must keep the rows of data": "mixes the rows of the batch",
    "transA must be 0": "rows of data as columns",
    "one axis, the channels": "channels on axis 1 of more",
    "must normalise the last axis": "normalises several axes",
    "training mode": "training",
    "its mask": "training",
    "softmax must be over": "softmax over another axis",
    "must be a matrix": "weights for each row of the batch",
    "has more axes": "weights for each row of the batch",
    "its output has rows": "moves positions",
    "only flatten": "moves positions",
    "cannot take the shape": "moves positions",
    "perm may only": "moves positions",
    "must be one constant number": "a slope for each column",
    "must cast real numbers": "gives integers",
    "must be a tensor of numbers": "takes strings or truth",
    "which from_onnx does not read": "types of 8 bits and less",
    "does not broadcast to rows": "widens rows",
    "must come from one": "integers from outside",
    "must be quantized integers": "integers from outside",
    "must have two inputs": "three terms",
    "its constant must be of numbers": "other types",
    "lower bound must be below": "clamps to nothing",
    "cannot be combined": "widens rows",
    "needs one float scale": "several scales of one tensor of data",
    "no layer does": "a decomposition with parameters of its own",
    "must have an axis for the rows": "no rows",
}


def wanted(case):
    if not case.data_sets[0]:
        return False
    if "qlinearmatmul_2D_int8" in case.name and ONNX < (1, 23):  # its numbers wrapped, where the operator saturates
        return False
    operators = {node.op_type for node in case.model.graph.node}
    if "_expanded" in case.name:
        return case.name.removeprefix("test_").split("_")[0] in EXPANDED
    return operators <= OPERATORS


def arrays(values):
    return all(isinstance(value, np.ndarray | np.generic) for value in values)


def bound(case, inputs):
    """The case's model, of its first input and its first output; all other inputs are constants."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    names = [entry.name for entry in model.graph.input]
    for name, value in list(zip(names, inputs, strict=True))[1:]:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del model.graph.input[1:], model.graph.output[1:]
    return model


# Of operators on integers, where the scale and zero point are of what goes in and of what comes out.
INTEGERS = {"QuantizeLinear": (None, 1), "DequantizeLinear": (1, None), "QLinearMatMul": (1, 6)}


def integer_outcome(name, case, inputs, expected):
    """The case between a QuantizeLinear and a DequantizeLinear of its own scales; integers must be the case's."""
    (made,) = case.model.graph.node
    before, after = INTEGERS[made.op_type]
    if len(inputs) < 3 or any(np.asarray(value).dtype.name not in READ for value in (*inputs, expected)):
        return "types of other widths, or no zero point"
    model, x = bound(case, inputs), np.asarray(inputs[0])
    said = [None if first is None else list(made.input[first : first + 2]) for first in (before, after)]
    kind = TensorProto.FLOAT16 if np.asarray(inputs[1]).dtype == np.float16 else TensorProto.FLOAT
    if said[0] is not None:
        made_node = helper.make_node("QuantizeLinear", ["real", *said[0]], [model.graph.input[0].name])
        model.graph.node.insert(0, made_node)
        scale, zero = (np.asarray(value).astype(np.float32) for value in inputs[before : before + 2])
        if scale.size == 1:
            x = (x.astype(np.float32) - zero.reshape(())) * scale.reshape(())
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("real", kind, x.shape))
    if said[1] is not None:
        model.graph.node.append(helper.make_node("DequantizeLinear", [model.graph.output[0].name, *said[1]], ["out"]))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", kind, None))
    try:
        imported = from_onnx(model)
    except ValueError as error:
        found = [said for part, said in REASONS.items() if part in str(error)]
        assert found, f"{name}: {error}"
        return found[0]
    x = x[:, None] if x.ndim == 1 else x
    if after is None:
        np.testing.assert_array_equal(imported.predict(x).reshape(expected.shape), expected)
    else:
        np.testing.assert_array_equal(imported.predict_integers(x).reshape(expected.shape), expected)
    return "runs"


def outcome(name):
    """Return "runs", or why a case cannot run; wrong numbers fail here."""
    case = CASES[name]
    inputs, outputs = case.data_sets[0]
    if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in INTEGERS:
        if not arrays([*inputs, *outputs]):
            return "types of other widths, or no zero point"
        return integer_outcome(name, case, inputs, np.asarray(outputs[0]))
    if not inputs or not arrays([*inputs, outputs[0]]):
        return "no tensors"
    if np.asarray(inputs[0]).dtype.kind not in "fiu" and np.asarray(inputs[0]).dtype.name != "bfloat16":
        return "takes strings or truth"
    try:
        model = from_onnx(bound(case, inputs))
    except (ValueError, NotImplementedError) as error:
        found = [said for part, said in REASONS.items() if part in str(error)]
        assert found, f"{name}: {error}"
        return found[0]
    x, expected = np.asarray(inputs[0]), np.asarray(outputs[0]).astype(np.float64)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32)
    x = x[:, None] if x.ndim == 1 else x  # rows of one column
    half = min(np.dtype(np.asarray(value).dtype).itemsize for value in (inputs[0], outputs[0])) < 4
    answer = model.predict(x)
    np.testing.assert_allclose(
        answer.reshape(expected.shape), expected, rtol=1e-2 if half else 1e-5, atol=1e-2 if half else 1e-6, err_msg=name
    )
    return "runs"


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in a case's own float16 data
def test_node_cases(capsys):
    outcomes = {name: outcome(name) for name, case in CASES.items() if wanted(case)}
    counts = Counter(outcomes.values())
    ran = sorted(name.removeprefix("test_") for name, said in outcomes.items() if said == "runs")
    with capsys.disabled():
        print(f"\n{len(ran)} of {len(outcomes)} node cases ran through from_onnx: {', '.join(ran)}")
        print("others:", ", ".join(f"{said}: {count}" for said, count in counts.most_common() if said != "runs"))
    assert len(ran) >= 80
    started = {name.split("_")[0] for name in ran}
    assert {"gemm", "matmul", "relu", "sigmoid", "tanh", "softmax", "elu", "leakyrelu", "selu", "softplus"} <= started
    assert {"hardsigmoid", "hardswish", "gelu", "clip", "layer", "flatten", "reshape", "identity", "dropout"} <= started
    products = {name for name in outcomes if name.startswith("test_qlinearmatmul_2D")}
    assert products and all(outcomes[name] == "runs" for name in products if "float16" not in name)
    assert {"gelu_default_1_expanded", "gelu_tanh_1_expanded", "softplus_expanded_ver18"} <= set(ran)
