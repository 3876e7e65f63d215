"""Quantized networks of every kind of layer in every flavour: what onnxruntime makes of them is what nbdense does."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from nbdense import activations
from nbdense.activations import ACTIVATIONS
from nbdense.engine.elementwise.elementary import exp
from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph.checks import serialize
from nbdense.export.graph.opsets import newest_opset
from nbdense.export.verify import runtime
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import (
    LIMITS,
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedFlatten,
    QuantizedNetwork,
    QuantizedSoftmax,
)
from tests.reference import naive_integer
from tests.support.drawn_networks import DTYPES, F32, FUNCTIONS, Drawn, alpha_of, draw_network
from tests.support.onnx_graphs import ALWAYS_LOADABLE, operators, optimised

STATIC = ["qdq", "qoperator"]
RUNTIME = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


def held(network, flavour, opset=None, exact=False):
    """The ONNX model, after what is asked of all: the checker, loading, batches, integers that are equal."""
    model = to_onnx(network, flavour=flavour, opset=opset, verify=False)
    onnx.checker.check_model(model, full_check=True)
    if opset is not None and opset > ALWAYS_LOADABLE:
        return model
    result = verify_onnx(model, network)
    assert result.agrees, result
    assert result.batch_sizes == (1, 7, 64, 1024)
    if result.integers is not None and not result.saturates:
        assert result.differing_integers <= (0 if exact else result.integers / 1000), result
        assert result.max_integer_difference <= 1, result
    return model


# -- static: the patterns that onnxruntime fuses --


# QLinearConv of older releases takes one zero point of weights.
@pytest.mark.parametrize("granularity", ["per_tensor", *(["per_channel"] if RUNTIME >= (1, 31) else [])])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flavour", STATIC)
def test_zero_points_of_weights(flavour, dtype, granularity, tmp_path):
    """They are fused as without; in a convolution too each column may have its own."""
    d = Drawn(2, dtype)
    a, b, c = d.format(0.02), d.format(0.03), d.format(0.05)
    layers = [
        d.dense(18, 37, a, b, name="d0", granularity=granularity),
        d.dense(37, 5, b, c, name="d1", granularity=granularity),
    ]
    for i, layer in enumerate(layers):
        zeros = d.rng.integers(-128, 128, layer.n_out).astype(np.int8)
        zeros[:] = zeros[0] if granularity == "per_tensor" else zeros
        kernel = d.rng.integers(-128, 128, layer.kernel.shape).astype(np.int8)
        layers[i] = dataclasses.replace(layer, kernel=kernel, kernel_zero_points=zeros)
    model = held(QuantizedNetwork(layers, dtype), flavour, exact=True)
    between = optimised(model, tmp_path)
    assert between == ["QuantizeLinear", "QGemm", "QGemm", "DequantizeLinear"]
    image = QuantizedNetwork(layers, dtype, input_shape=(2, 3, 3))
    result = verify_onnx(to_onnx(image, flavour=flavour, as_convolution=True, verify=False), image)
    assert result.agrees and (result.saturates or result.differing_integers == 0), result


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flavour", STATIC)
def test_mlps_are_integers_from_end_to_end(flavour, dtype, bias, granularity, tmp_path):
    d = Drawn(1, dtype)
    a, b, c = d.format(0.02), d.format(0.03, LIMITS[dtype][0]), d.format(0.05)
    kind = {"bias": bias, "granularity": granularity}
    layers = [
        d.dense(13, 37, a, b, "relu", "d0", **kind),
        d.dense(37, 17, b, b, "relu", "d1", **kind),
        d.dense(17, 5, b, c, "linear", "d2", **kind),
    ]
    model = held(QuantizedNetwork(layers, dtype), flavour, exact=True)
    between = optimised(model, tmp_path)
    assert (between[0], between[-1]) == ("QuantizeLinear", "DequantizeLinear")
    assert len(between) == 5
    assert all(name == "QGemm" or name.startswith("QLinear") for name in between[1:-1])


def residual(dtype, activation="relu", seed=2):
    d = Drawn(seed, dtype)
    a, b, c, e = d.format(0.02), d.format(0.03), d.format(0.05), d.format(0.04)
    if activation == "relu":
        e = e[0], LIMITS[dtype][0]
    return QuantizedNetwork(
        [
            d.dense(9, 21, a, b, name="d0"),
            d.dense(21, 21, b, c, name="d1"),
            QuantizedAdd("add", 21, (c[0], b[0]), (c[1], b[1]), *e, activation, alpha_of(activation), inputs=(2, 1)),
            d.dense(21, 5, e, b, name="d2"),
        ],
        dtype,
    )


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flavour", STATIC)
def test_residual_sums(flavour, dtype, activation, opset, tmp_path):
    network = residual(dtype, activation)
    model = held(network, flavour, opset, exact=flavour == "qoperator")
    between = optimised(model, tmp_path)
    if flavour == "qdq" and dtype == "int8":
        assert "QLinearAdd" not in between  # on x86, as the documentation says
        return
    assert between[0] == "QuantizeLinear"
    assert between.count("QLinearAdd") == 1
    if activation == "relu6":
        assert "Clip" in between  # its bounds are within the type's
    else:
        assert between == ["QuantizeLinear", "QGemm", "QGemm", "QLinearAdd", "QGemm", "DequantizeLinear"]


@pytest.mark.parametrize("flavour", STATIC)
def test_a_tensor_that_two_layers_read(flavour):
    """The same quantized input for both branches: it is quantized once where they agree on it, else twice."""
    for same in (True, False):
        d = Drawn(3, "uint8")
        a, b = d.format(0.02), d.format(0.03)
        other = a if same else d.format(0.05)
        add = QuantizedAdd("add", 6, (b[0], b[0]), (b[1], b[1]), *d.format(0.04), inputs=(1, 2))
        layers = [d.dense(9, 6, a, b, inputs=(0,)), d.dense(9, 6, other, b, inputs=(0,)), add]
        model = held(QuantizedNetwork(layers, "uint8"), flavour)
        assert sum(node.input[0] == "input" for node in model.graph.node) == (1 if same else 2)
        assert len({node.output[0] for node in model.graph.node}) == len(model.graph.node)


# -- static: activations --


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", sorted(set(FUNCTIONS) - {"relu", "relu6"}))
def test_tables(activation, dtype, opset, tmp_path):
    d = Drawn(4, dtype)
    a, e = d.format(0.02), d.format(0.05)
    first, b = d.looked_up(9, 21, a, activation)
    network = QuantizedNetwork([first, d.dense(21, 5, b, e, name="last")], dtype)
    exact = held(network, "qoperator", opset, exact=True)
    assert operators(exact) == ["QuantizeLinear", "QGemm", "Cast", "Gather", "QGemm", "DequantizeLinear"]
    model = to_onnx(network, opset=opset)  # refuses what does not agree
    assert "Gather" not in operators(model)
    between = optimised(model, tmp_path)
    assert between.count("QGemm") == 2
    assert "Gemm" not in between


@pytest.mark.parametrize("flavour", STATIC)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_activations_as_layers_of_their_own(activation, dtype, flavour):
    d = Drawn(5, dtype)
    a, b, e = d.format(0.02), d.format(0.05), d.format(0.05)
    c = d.output_of(activation, b)
    table = d.table(activation, b, c)
    looked_up = QuantizedActivation("act", 7, *b, *c, table, activation, alpha_of(activation))
    network = QuantizedNetwork([d.dense(9, 7, a, b), looked_up, d.dense(7, 5, c, e, name="last")], dtype)
    result = verify_onnx(to_onnx(network, flavour=flavour), network)
    assert result.agrees
    assert flavour == "qdq" or result.saturates or result.differing_integers == 0


@pytest.mark.parametrize("flavour", STATIC)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_of_ones_own_are_tables(dtype, flavour, tmp_path):
    """No operator has them; the 256 entries do."""
    d = Drawn(6, dtype)
    a, b, c, e = (d.format(0.04) for _ in range(4))
    tables = [d.rng.permutation(256).astype(np.int16) + LIMITS[dtype][0] for _ in range(2)]
    tables = [table.astype(dtype) for table in tables]
    own = activations.Activation("wave", activations.ON_DEMAND, lambda z: exp(z), lambda z: exp(z), False, "", own=True)
    network = QuantizedNetwork(
        [
            d.dense(9, 7, a, c, "my wave", pre=b, table=tables[0], bias=True),
            QuantizedActivation("act", 7, *c, *b, tables[1], "my wave"),
            d.dense(7, 5, b, e, name="last"),
        ],
        dtype,
    )
    model = held(network, flavour, exact=True)
    assert operators(model).count("Gather") == 2
    if (flavour, dtype) != ("qdq", "int8"):  # there onnxruntime on x86 keeps what is beside a table in float
        assert optimised(model, tmp_path).count("QGemm") == 2
    with pytest.raises(ValueError, match="layer 'f': activation 'wave' is one of your own: it has no ONNX form"):
        left = FloatLayer("f", "activation", 5, activation="wave", custom=own)
        to_onnx(QuantizedNetwork([d.dense(9, 5, a, e), left], dtype), flavour=flavour)


@pytest.mark.parametrize("opset", [13, 17, 18, newest_opset()])
@pytest.mark.parametrize("flavour", STATIC)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.003, 0.1, 3.0])
def test_softmax_in_integers(scale, dtype, flavour, opset):
    d = Drawn(7, dtype)
    a, b = d.format(0.02), d.format(scale)
    softmax = QuantizedSoftmax("sm", 6, *b, LIMITS[dtype][0], naive_integer.exponentials(b[0]))
    held(QuantizedNetwork([d.dense(9, 6, a, b), softmax], dtype), flavour, opset, exact=flavour == "qoperator")


# -- positions, mixtures --


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("ends", ["flat", "positions", "softmax", "float softmax"])
@pytest.mark.parametrize("flavour", STATIC)
@pytest.mark.parametrize("dtype", DTYPES)
def test_positions(dtype, flavour, ends, opset):
    d = Drawn(8, dtype)
    a, b, c = d.format(0.02), d.format(0.03), d.format(0.05)
    layers = [d.dense(6, 5, a, b, positions=4), d.dense(5, 3, b, c, name="d1", positions=4)]
    if ends == "flat":
        layers += [QuantizedFlatten("flat", 3, *c, positions=4), d.dense(12, 5, c, b, name="d2")]
    if ends == "softmax":
        exponentials = naive_integer.exponentials(c[0])
        layers.append(QuantizedSoftmax("sm", 3, *c, LIMITS[dtype][0], exponentials, positions=4))
    final = "softmax" if ends == "float softmax" else "linear"
    network = QuantizedNetwork(layers, dtype, final_activation=final, input_shape=(2, 2, 6))
    model = held(network, flavour, opset, exact=True)
    dims = [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["batch", *([5] if ends == "flat" else [2, 2, 3])]


@pytest.mark.parametrize("flavour", STATIC)
def test_an_input_of_axes_that_is_read_as_one(flavour):
    d = Drawn(9)
    a, b = d.format(0.02), d.format(0.03)
    network = QuantizedNetwork([d.dense(24, 5, a, b)], input_shape=(2, 3, 4))
    assert operators(held(network, flavour, exact=True))[0] == "Flatten"


def mixed(dtype="int8", seed=10):
    """float, integers, float: a norm, a sum of both, and a softmax at the end."""
    d = Drawn(seed, dtype)
    a, b = d.format(0.03), d.format(0.03)
    norm = {name: d.rng.uniform(0.5, 2, 12).astype(F32) for name in ("gamma", "beta", "mean", "variance")}
    scaled = {name: norm[name] for name in ("gamma", "beta")}
    return QuantizedNetwork(
        [
            d.float_dense(7, 12, "tanh"),
            d.dense(12, 12, a, b, positions=1),
            FloatLayer("bn", "batch_norm", 12, norm, alpha=1e-3),
            FloatLayer("ln", "layer_norm", 12, scaled, alpha=1e-3),
            FloatLayer("add", "add", 12, inputs=(1, 4)),
            FloatLayer("act", "activation", 12, activation="elu", alpha=1.0),
            d.float_dense(12, 4, "softmax", "last"),
        ],
        dtype,
    )


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("flavour", STATIC)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_left_in_float(dtype, flavour, opset, tmp_path):
    network = mixed(dtype)
    model = held(network, flavour, opset)
    assert optimised(model, tmp_path).count("QGemm") == 1
    assert to_onnx(network, flavour=flavour, labels=True).graph.output[0].name == "label"


def test_float_layers_on_positions_and_behind_integers():
    d = Drawn(11)
    a, b = d.format(0.03), d.format(0.03)
    network = QuantizedNetwork(
        [
            FloatLayer("ln", "layer_norm", 6, alpha=1e-3, positions=3),
            d.dense(6, 8, a, b, positions=3),
            d.weight_only(8, 5, activation="relu", positions=3),
            d.float_dense(5, 4, "tanh", positions=3),
            FloatLayer("flat", "flatten", 4, positions=3),
            d.float_dense(12, 2),
        ],
        input_shape=(3, 6),
    )
    for flavour in STATIC:
        for opset in (13, 17, 21):
            held(network, flavour, opset)


# -- dynamic --


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "softmax"])
def test_dynamic(activation, positions, granularity, opset, tmp_path):
    d = Drawn(12)
    kind = {"positions": positions, "granularity": granularity}
    layers = [d.dynamic(37, 50, activation, **kind), d.dynamic(50, 4, activation, bias=False, **kind)]
    network = QuantizedNetwork(layers)
    model = held(network, "dynamic", opset)
    between = optimised(model, tmp_path)
    assert between.count("DynamicQuantizeMatMul") + between.count("MatMulIntegerToFloat") == 2
    # Each batch has its own scale: the rows of two are not the rows of one.
    x = np.random.default_rng(1).standard_normal((64, *network.input_shape), np.float32)
    session = onnxruntime.InferenceSession(serialize(model), providers=["CPUExecutionProvider"])
    for batch in (x, x[:1], x[1:7]):
        np.testing.assert_allclose(
            session.run(None, {"input": batch})[0], QuantizedModel(network).predict(batch), atol=0.02
        )


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_behind_float_weights(activation):
    d = Drawn(13)
    for layer in (d.dynamic(9, 6, activation), d.weight_only(9, 6, activation=activation)):
        network = QuantizedNetwork([layer, d.float_dense(6, 3)])
        for opset in (13, 17):
            held(network, None, opset)
    held(QuantizedNetwork([d.weight_only(64, 6, 16, 4, activation), d.float_dense(6, 3)]), None, 21)


def test_doctored_files_of_models_that_end_in_float_differ():
    d = Drawn(14)
    for network, name in (
        (QuantizedNetwork([d.dynamic(9, 6, "relu"), d.dynamic(6, 3)]), "dy/weight_scale"),
        (QuantizedNetwork([d.weight_only(9, 6)]), "w/weight_scale"),
        (mixed(), "d/bias_scale"),  # onnxruntime's QGemm never reads it
        (mixed(), "last/weight"),
    ):
        model = to_onnx(network)
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * F32(3.0), name))
        result = verify_onnx(model, network)
        assert not result.agrees, (name, result)


def test_saturation_is_reported_where_a_model_ends_in_float(monkeypatch):
    d = Drawn(15)
    network = QuantizedNetwork([d.dynamic(9, 6, "relu"), d.dynamic(6, 3)])
    model, real = to_onnx(network), runtime.open_session

    def saturating(*arguments, **options):
        run = real(*arguments, **options)
        return lambda batch: [np.minimum(run(batch)[-1], 0.1)]

    monkeypatch.setattr(runtime, "open_session", saturating)
    for saturates in (False, True):
        monkeypatch.setattr(runtime, "kernels_saturate", lambda answer=saturates: answer)
        result = verify_onnx(model, network)
        assert result.agrees == result.saturates == saturates
        assert ("saturate on this CPU" in str(result)) == saturates


# -- weights alone --


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6", "tanh"])
@pytest.mark.parametrize("n_in", [16, 45, 64, 129])
@pytest.mark.parametrize(("bits", "block_size"), [(8, 0), (8, 32), (4, 0), (4, 16), (4, 32), (4, 128), (4, 7)])
def test_weights_alone(bits, block_size, n_in, activation, bias, tmp_path):
    d = Drawn(16)
    layers = [d.weight_only(n_in, 6, block_size, bits, activation, bias), d.float_dense(6, 3, "softmax")]
    network = QuantizedNetwork(layers)
    model = held(network, "weight_only")
    blocked = bits == 4 or -(-n_in // (block_size or n_in)) > 1
    assert (model.opset_import[0].version, model.ir_version) == ((21, 10) if blocked else (17, 8))
    if RUNTIME >= (1, 31):  # older releases compute the same, and fuse less
        assert ("MatMulNBits" in optimised(model, tmp_path)) == (blocked and block_size != 7)
    if bits == 4:
        (weight,) = (t for t in model.graph.initializer if t.name == "w/weight_quantized")
        assert weight.data_type == onnx.TensorProto.INT4
        assert len(weight.raw_data) == -(-n_in * 6 // 2)
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight).astype(np.int8), layers[0].kernel)


@pytest.mark.parametrize(("bits", "block_size"), [(4, 0), (4, 32), (8, 32)])
def test_an_opset_before_int4_and_blocks(bits, block_size):
    network = QuantizedNetwork([Drawn(17).weight_only(64, 6, block_size, bits)])
    with pytest.raises(ValueError, match=rf"weights of {bits} bits.* need opset 21 \(IR version 10\), got 17"):
        to_onnx(network, opset=17)
    assert held(network, None, 21).ir_version == 10
    if newest_opset() > 21:
        assert held(network, None, newest_opset()).opset_import[0].version == newest_opset()


def test_weights_alone_on_positions():
    d = Drawn(18)
    network = QuantizedNetwork(
        [d.weight_only(32, 6, 16, 4, "relu", positions=6), d.weight_only(6, 3, positions=6)], input_shape=(2, 3, 32)
    )
    held(network, None)


# -- the door --


def test_flavours_of_other_kinds_of_models():
    d = Drawn(19)
    a, b = d.format(0.02), d.format(0.03)
    models = {
        "static": QuantizedNetwork([d.dense(9, 5, a, b)]),
        "dynamic": QuantizedNetwork([d.dynamic(9, 5)]),
        "weight_only": QuantizedNetwork([d.weight_only(9, 5)]),
    }
    fits = {"float": None, "qdq": "static", "qoperator": "static", "dynamic": "dynamic", "weight_only": "weight_only"}
    for kind, network in models.items():
        for flavour, of in fits.items():
            if of == kind:
                said = to_onnx(network, flavour=flavour).metadata_props
                assert {entry.key: entry.value for entry in said}["nbdense_flavour"] == flavour
            else:
                with pytest.raises(ValueError, match=f"flavour '{flavour}' needs .*, got a .*quantized"):
                    to_onnx(network, flavour=flavour)


def test_the_report_is_in_the_metadata():
    d = Drawn(20)
    a, b = d.format(0.02), d.format(0.03)
    report = {"scheme": "static", "loss": np.float64(0.5), "layers": [{"name": "d", "rms": 0.01}]}
    network = QuantizedNetwork([d.dense(9, 5, a, b)], report=report)
    said = {entry.key: entry.value for entry in to_onnx(network, metadata={"accuracy": 0.97}).metadata_props}
    assert json.loads(said["nbdense_report"]) == {"scheme": "static", "loss": 0.5, "layers": report["layers"]}
    assert said["accuracy"] == "0.97"


def test_rounding_matters_to_integers_only():
    d = Drawn(21)
    a, b = d.format(0.02), d.format(0.03)
    for flavour in STATIC:
        with pytest.raises(ValueError, match="rounds as 'tflite'"):
            to_onnx(QuantizedNetwork([d.dense(9, 5, a, b)], rounding="tflite"), flavour=flavour)
    held(QuantizedNetwork([d.dynamic(9, 5)], rounding="tflite"), None)


# -- all of it --


@pytest.mark.parametrize("seed", range(24))
def test_drawn_networks(seed):
    network = draw_network(seed)
    for flavour in STATIC:
        for opset in (13, 17, ALWAYS_LOADABLE):
            model = to_onnx(network, flavour=flavour, opset=opset, verify=False)
            onnx.checker.check_model(model, full_check=True)
            result = verify_onnx(model, network)
            assert result.agrees, (flavour, result)
            assert flavour == "qdq" or result.saturates or result.differing_integers == 0, result
