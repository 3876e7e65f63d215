"""Float networks as ONNX: the same values in onnxruntime, the same bytes in every process, and errors at the door."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from nbdense import _version, backends
from nbdense.activations import ACTIVATIONS
from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph.activations import ACTIVATION_FORMS, ACTIVATION_OPERATORS
from nbdense.export.graph.checks import serialize
from nbdense.export.graph.opsets import newest_opset
from nbdense.export.write import exporter
from nbdense.layers import BatchNormalization, Dense, Flatten, Input, LayerNormalization, Residual
from nbdense.models import Sequential, load_model
from nbdense.quant import quantize
from tests.support.onnx_graphs import ALWAYS_LOADABLE, network, operators, rows

# -- the graph --


def test_table_of_forms_agrees_with_the_activations():
    assert list(ACTIVATION_FORMS) == list(ACTIVATIONS)
    for name, row in ACTIVATIONS.items():
        form = ACTIVATION_FORMS[name]
        assert (form.write is None) == (name == "linear")
        assert (form.fit is None) == (not row.parameters), name  # those with a parameter, alone
        assert not row.onnx or row.onnx in form.operators, name  # what is written so is read so
    assert len(ACTIVATION_OPERATORS) == sum(len(form.operators) for form in ACTIVATION_FORMS.values())  # no two rows'


@pytest.mark.parametrize("sizes", [(1, 1, 2), (7, 13, 5), (16, 17, 33), (31, 64, 3)])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_onnxruntime_computes_the_same(activation, sizes):
    net = network(sizes, [activation, activation])
    result = verify_onnx(to_onnx(net), net, rows(sizes[0]))
    assert result.agrees, result
    assert result.batch_sizes == (1, 7, 64, 200)
    assert min(result.max_absolute, result.max_relative) <= 1e-5
    assert result.differing_classes == 0


def test_without_bias_and_in_float64():
    without_bias = network((5, 9, 3), ["relu", "linear"], bias=False)
    in_float64 = network((5, 9, 3), ["tanh", "softmax"], dtype=np.float64)
    for net in (without_bias, in_float64):
        model = to_onnx(net)
        assert verify_onnx(model, net).agrees
        assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT}


def test_rows_are_wired_by_their_buffers():
    net = network((6, 6, 6, 4), ["relu", "tanh", "linear"])
    net.layers[2]["input"] = net.layers[0]["output"]  # d1 is left aside
    net.refresh()
    model = to_onnx(net)
    assert model.graph.node[-1].input[0] == "d0/output"
    assert verify_onnx(model, net).agrees
    net.layers[2]["input"] = 0
    net.refresh()
    assert verify_onnx(to_onnx(net), net).agrees


def test_names_shapes_and_metadata():
    model = to_onnx(network((4, 8, 3), ["relu", "softmax"]))
    assert model.opset_import[0].version == 17
    assert model.ir_version == 8
    assert (model.producer_name, model.producer_version) == ("nbdense", _version.__version__)
    assert {p.key: p.value for p in model.metadata_props} == {
        "nbdense_version": _version.__version__,
        "nbdense_flavour": "float",
    }
    ends = [
        (end.name, end.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim])
        for end in (*model.graph.input, *model.graph.output)
    ]
    assert ends == [("input", 1, ["batch", 4]), ("output", 1, ["batch", 3])]
    assert [(node.op_type, list(node.output)) for node in model.graph.node] == [
        ("Gemm", ["d0/preactivation"]),
        ("Relu", ["d0/output"]),
        ("Gemm", ["d1/preactivation"]),
        ("Softmax", ["output"]),
    ]
    assert {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} == {
        "d0/weight": (8, 4),
        "d0/bias": (8,),
        "d1/weight": (3, 8),
        "d1/bias": (3,),
    }
    assert not any(node.doc_string for node in model.graph.node)


def test_layers_of_one_name_stay_apart():
    net = network((3, 4, 5, 2), ["relu", "relu", "linear"])
    net.names = ["a", "a", ""]
    model = to_onnx(net)
    assert [node.name.split("/")[0] for node in model.graph.node] == ["a", "a", "a_2", "a_2", "output"]
    assert verify_onnx(model, net).agrees


@pytest.mark.parametrize("opset", range(13, newest_opset() + 1))
def test_every_opset(opset):
    net = network((3, 5, 4, 2), ["sigmoid", "relu", "softmax"])
    model = to_onnx(net, opset=opset, verify=False)
    assert model.opset_import[0].version == opset
    lowest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    assert model.ir_version == lowest
    assert operators(model) == ["Gemm", "Sigmoid", "Gemm", "Relu", "Gemm", "Softmax"]
    try:
        assert verify_onnx(model, net).agrees
    except RuntimeError as error:
        assert opset > ALWAYS_LOADABLE
        assert "cannot load" in str(error)


def test_what_onnxruntime_cannot_load_is_said(tmp_path):
    net = network((3, 2), ["linear"])
    model = to_onnx(net)
    model.ir_version = 8
    model.opset_import[0].version = newest_opset()
    model.graph.node[0].domain = "no.such.domain"
    model.opset_import.append(onnx.helper.make_opsetid("no.such.domain", 1))
    with pytest.raises(RuntimeError, match=r"onnxruntime .* cannot load the model \(opset .*verify=False"):
        verify_onnx(model, net)


# -- the file --

HASHES = """
import hashlib, json, sys
from pathlib import Path
from nbdense.export.graph import builder as graph
from nbdense.export import to_onnx
from nbdense.models import load_model
for path, options in zip(sys.argv[1::2], sys.argv[2::2]):
    options = json.loads(options)
    graph.LARGEST_FILE = options.pop("largest", 10**9)
    to_onnx(load_model(path), path + ".onnx", verify=False, **options)
    files = sorted(Path(path).parent.glob(Path(path).name + ".onnx*"))
    print(*(file.name + hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
"""


def test_bytes_are_the_same_in_every_process(tmp_path):
    model = Sequential([Input((6,)), Dense(11, "relu"), Dense(7, "tanh"), Dense(3, "softmax")])
    block = [LayerNormalization(), Dense(99, "gelu"), Dense(4)]
    layers = Sequential([Input((3, 4)), Residual(block), BatchNormalization(), Flatten(), Dense(2)])
    image = Sequential([Input((2, 3, 4)), Flatten(), Dense(9, "relu"), Dense(3)])
    models = {
        "float": (model, {"labels": True, "class_names": ["a", "b", "c"], "metadata": {"b": [1.5], "a": {"y": 1}}}),
        "int8": (quantize(model, rows(6)), {"labels": True}),
        "qoperator": (quantize(model, rows(6)), {"flavour": "qoperator"}),
        "layers": (layers, {"fold_batch_norm": False, "largest": 100}),
        "image": (image, {"as_convolution": True, "opset": 13}),
    }
    arguments = []
    for name, (each, options) in models.items():
        path = str(tmp_path / f"{name}.model")
        each.save(path)
        arguments += [path, json.dumps(options)]
    (whole,) = models["int8"][:1]
    expected = hashlib.sha256(serialize(to_onnx(whole, labels=True, verify=False))).hexdigest()
    printed = set()
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", HASHES, *arguments],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        printed.add(run.stdout)
        assert f"int8.model.onnx{expected}" in run.stdout
        assert "layers.model.onnx." in run.stdout  # the file beside it
        for path in tmp_path.glob("*.onnx*"):
            path.unlink()
    assert len(printed) == 1


def test_file_holds_the_model_that_is_returned(tmp_path):
    model = Sequential([Input((4,)), Dense(6, "relu"), Dense(1)])
    path = tmp_path / "m.onnx"
    returned = to_onnx(model, path)
    assert path.read_bytes() == serialize(returned)
    assert list(tmp_path.iterdir()) == [path]
    assert verify_onnx(path, model).agrees
    assert verify_onnx(str(path), model, rows(4)).rows == 200


def test_a_graph_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    def write(graph, net, form):
        other = net.copy()
        other.params[0] += 0.01
        exporter.write_float(graph, other, form.fold)

    monkeypatch.setitem(exporter.FLAVOURS, "float", exporter.Flavour(write, "float"))
    net = network((3, 5, 2), ["relu", "softmax"])
    with pytest.raises(RuntimeError, match="does not compute what the model predicts.*differs"):
        to_onnx(net, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    to_onnx(net, tmp_path / "m.onnx", verify=False)


# -- the door --


@pytest.mark.parametrize("opset", [12, newest_opset() + 1, "17", 17.0, True])
def test_an_opset_out_of_range(opset):
    with pytest.raises(ValueError, match=f"opset must be from 13 to {newest_opset()}"):
        to_onnx(network((3, 2), ["linear"]), opset=opset)


@pytest.mark.parametrize("flavour", ["onnx", "QDQ", ""])
def test_a_flavour_that_there_is_not(flavour):
    with pytest.raises(ValueError, match=f"unknown flavour '{flavour}'; there are: 'float' .*'qdq' .*'weight_only'"):
        to_onnx(network((3, 2), ["linear"]), flavour=flavour)


@pytest.mark.parametrize("flavour", ["dynamic", "weight_only"])
def test_a_flavour_that_quantize_makes(flavour):
    with pytest.raises(ValueError, match=f"got a float model; quantize it with scheme='{flavour}'"):
        to_onnx(network((3, 2), ["linear"]), flavour=flavour)


def test_a_flavour_of_the_other_kind_of_model():
    net = network((3, 2), ["linear"])
    with pytest.raises(ValueError, match="'qdq' needs a quantized model, got a float model; quantize it first"):
        to_onnx(net, flavour="qdq")
    with pytest.raises(ValueError, match="'float' needs a float model, got a quantized model"):
        to_onnx(quantize(net, rows(3)), flavour="float")
    assert operators(to_onnx(net, flavour="float")) == ["Gemm"]


def test_what_is_no_model():
    with pytest.raises(TypeError, match="got dict"):
        to_onnx({})
    with pytest.raises(ValueError, match="not built"):
        to_onnx(Sequential([Dense(3)]))


def test_weights_that_float32_cannot_hold():
    net = network((3, 4, 2), ["relu", "linear"], dtype=np.float64)
    net.tensors()["d1/kernel"][0, 0] = 1e300
    with pytest.raises(ValueError, match="layer 'd1': its kernel holds"):
        to_onnx(net)
    net = network((3, 4, 2), ["relu", "linear"])
    net.tensors()["d0/bias"][1] = np.nan
    with pytest.raises(ValueError, match="layer 'd0': its bias holds"):
        to_onnx(net)


LEAN = """
import sys
import nbdense.export
assert {"to_onnx", "verify_onnx"} <= set(dir(nbdense.export))
print(sorted({"onnx", "onnxruntime", "google.protobuf"} & set(sys.modules)))
try:
    nbdense.export.no_such_name
except AttributeError:
    print("no such name")
"""


def test_import_is_lean():
    run = subprocess.run([sys.executable, "-W", "error", "-c", LEAN], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["[]", "no such name"], run.stderr


def test_saved_loaded_and_exported_again(tmp_path):
    model = Sequential([Input((5,)), Dense(8, "sigmoid"), Dense(2, "softmax")])
    model.save(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert serialize(to_onnx(again)) == serialize(to_onnx(model))
    assert np.array_equal(again.predict(rows(5)), backends.current().predict(model.network, rows(5)))
