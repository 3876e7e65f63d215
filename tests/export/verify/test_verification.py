"""verify_onnx: what agrees, what does not, and what cannot be compared."""

import sys

import numpy as np
import onnx
import pytest

from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph.checks import serialize
from nbdense.export.verify import runtime, verification
from nbdense.quant import quantize
from tests.support.onnx_graphs import network, rows


def doctored(model, name, change):
    """A copy of an ONNX model with one of its tensors changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = (t for t in copy.graph.initializer if t.name == name)
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(value).astype(value.dtype), name))
    return copy


@pytest.mark.parametrize("change", [lambda w: w * 1.001, lambda w: -w, lambda w: w * np.nan])
def test_a_doctored_float_file_differs(change, tmp_path):
    net = network((6, 9, 4), ["tanh", "softmax"])
    path = tmp_path / "m.onnx"
    path.write_bytes(serialize(doctored(to_onnx(net), "d1/weight", change)))
    result = verify_onnx(path, net)
    assert not result.agrees
    assert str(result).startswith("differs")
    assert result.max_absolute > 1e-5


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("d0/bias_scale", lambda s: s * 2),  # onnxruntime's QGemm never reads it
        ("d1/weight_quantized", lambda w: np.roll(w, 1)),
        ("d1/output_scale", lambda s: s * np.float32(1.1)),
        ("input_zero_point", lambda z: z + 3),
    ],
)
@pytest.mark.parametrize("final", ["softmax", "linear"])
def test_a_doctored_quantized_file_differs(final, name, change, monkeypatch):
    monkeypatch.setattr(runtime, "kernels_saturate", lambda: False)
    quantized = quantize(network((6, 9, 4), ["relu", final]), rows(6))
    model = to_onnx(quantized)
    result = verify_onnx(doctored(model, name, change), quantized)
    assert not result.agrees, result
    assert result.integers == 4 * 1024


def test_a_cpu_on_which_onnxruntime_saturates_is_reported(monkeypatch):
    quantized = quantize(network((6, 9, 4), ["relu", "softmax"]), rows(6))
    model = to_onnx(quantized)
    real, runs = runtime.open_session, []

    def saturating(proto, n_in, n_out, optimize=True, outside=None):
        run = real(proto, n_in, n_out, optimize, outside)
        runs.append(optimize)
        return (lambda batch: [np.maximum(run(batch)[-1], 0.25)]) if optimize else run

    monkeypatch.setattr(runtime, "open_session", saturating)
    for saturates in (False, True):
        monkeypatch.setattr(runtime, "kernels_saturate", lambda answer=saturates: answer)
        result = verify_onnx(model, quantized)
        assert result.agrees == result.saturates == saturates
        assert result.differing_integers > result.integers / 10
        assert ("saturate on this CPU" in str(result)) == saturates
    assert runs.count(False) == 2
    # The file itself is still held to what it says.
    assert not verify_onnx(doctored(model, "d0/bias_scale", lambda s: s * 2), quantized).agrees


def test_the_probe_for_saturation_runs():
    assert runtime.kernels_saturate() in {False, True}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_that_amplifies_rounding_is_not_refused(dtype):
    # Weights this large turn float32's last bit into more than 1e-5 of a probability.
    net = network((50, 200, 200, 3), ["linear", "linear", "softmax"], gain=30.0, dtype=dtype)
    result = verify_onnx(to_onnx(net), net)
    assert result.agrees, result
    assert result.tolerance > verification.TOLERANCE
    assert not verify_onnx(doctored(to_onnx(net), "d0/weight", lambda w: w * 1.01), net).agrees


def test_what_overflows_agrees_only_with_the_same():
    net = network((4, 8, 2), ["linear", "linear"])
    net.params *= np.float32(1e25)
    model = to_onnx(net)
    with np.errstate(all="ignore"):
        assert verify_onnx(model, net, rows(4)).agrees
        assert not verify_onnx(doctored(model, "d1/weight", lambda w: -w), net, rows(4)).agrees


def test_few_rows_are_repeated():
    net = network((4, 3), ["softmax"])
    result = verify_onnx(to_onnx(net), net, rows(4, 3))
    assert result.rows == 3
    assert result.batch_sizes == (1, 7, 64, 3)


def test_rows_of_any_kind():
    net = network((4, 3), ["softmax"])
    for x in (np.arange(20).reshape(5, 4), rows(4).astype(np.float64)[::-2], [[1, 2, 3, 4]], np.ones((4, 9), "f2").T):
        assert verify_onnx(to_onnx(net), net, x).agrees


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 5)), r"expects shape \(rows, 4\), got \(3, 5\)"),
        (np.zeros((0, 4)), "no rows"),
        (np.array([[0, 0, 0, 0], [0, 0, np.nan, 0]]), "row 1, column 2"),
        (np.full((1, 4), 1e300), "row 0, column 0"),
        (np.ma.masked_equal(np.arange(8.0).reshape(2, 4), 6), "x: masked element in row 1, column 2"),
    ],
)
def test_rows_that_cannot_be_compared_on(x, message):
    net = network((4, 3), ["softmax"])
    with pytest.raises(ValueError, match=message):
        verify_onnx(to_onnx(net), net, x)


def test_damaged_files(tmp_path):
    net = network((6, 9, 4), ["relu", "softmax"])
    whole = serialize(to_onnx(net))
    path = tmp_path / "m.onnx"
    for content in (whole[:-1], whole[: len(whole) // 2], b"", b"not an ONNX file"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.onnx is (damaged|not a valid)"):
            verify_onnx(path, net)
    with pytest.raises(FileNotFoundError, match=r"no_such\.onnx"):
        verify_onnx(tmp_path / "no_such.onnx", net)


def test_a_file_of_another_model():
    net = network((6, 9, 4), ["relu", "softmax"])
    for sizes in [(7, 9, 4), (6, 9, 5)]:
        with pytest.raises(ValueError, match=r"has shape .*, the model needs \[batch, "):
            verify_onnx(to_onnx(network(sizes, ["relu", "softmax"])), net)
    with pytest.raises(ValueError, match="comes from no DequantizeLinear"):
        verify_onnx(to_onnx(net), quantize(net, rows(6)))


def test_a_graph_that_is_not_valid():
    net = network((6, 9, 4), ["relu", "softmax"])
    model = to_onnx(net)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ValueError, match="the ONNX model is not a valid ONNX model"):
        verify_onnx(model, net)


def test_a_fixed_batch_is_refused():
    net = network((6, 4), ["softmax"])
    model = to_onnx(net)
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ValueError, match=r"needs \[batch, 6\]"):
        verify_onnx(model, net)


def test_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    net = network((6, 4), ["softmax"])
    model = to_onnx(net, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").exists()
    with pytest.raises(ImportError, match=r"nbdense\[onnxruntime\]"):
        verify_onnx(model, net)


def test_nothing_is_printed(capfd):
    net = network((6, 9, 4), ["relu", "softmax"])
    quantized = quantize(net, rows(6))
    capfd.readouterr()
    to_onnx(net)
    to_onnx(quantized)
    assert capfd.readouterr() == ("", "")
