"""Models as users make them, quantized in every way, in every flavour and opset: from Sequential to onnxruntime.

The grid is drawn: every stack of layers meets every way to quantize it, with an opset, labels and a batch
normalisation that is folded or not, each in turn.
"""

import itertools
import zlib

import numpy as np
import onnx
import onnxruntime
import pytest

from nbdense import layers as k
from nbdense.activations import ACTIVATIONS
from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph.checks import serialize
from nbdense.export.graph.opsets import newest_opset
from nbdense.quant import quantize
from tests.support.onnx_graphs import ALWAYS_LOADABLE, optimised
from tests.support.stacks import data, made, randomise

STACKS = {
    "relu": (lambda: [k.Dense(24, "relu"), k.Dense(17, "relu"), k.Dense(5, "softmax")], (13,)),
    "tables": (lambda: [k.Dense(24, "tanh"), k.Dense(17, "gelu"), k.Dense(9, "sigmoid"), k.Dense(5)], (13,)),
    "rms norm": (lambda: [k.RMSNormalization(), k.Dense(24, "tanh"), k.RMSNormalization(), k.Dense(5)], (13,)),
    "norms": (lambda: [k.Dense(24), k.BatchNormalization(), k.ReLU(), k.LayerNormalization(), k.Dense(5)], (13,)),
    "residual": (
        lambda: [k.Dense(16, "relu"), k.Residual([k.Dense(24, "relu"), k.Dense(16)]), k.ReLU(), k.Dense(5, "softmax")],
        (13,),
    ),
    "projection": (
        lambda: [k.Residual([k.Dense(16, "silu"), k.Dropout(0.5), k.Dense(8)]), k.Dense(1, "sigmoid")],
        (13,),
    ),
    "image": (lambda: [k.Flatten(), k.Dense(20, "relu6"), k.Dense(5, "softmax")], (2, 3, 4)),
    "positions": (
        lambda: [k.Residual([k.LayerNormalization(), k.Dense(12, "relu"), k.Dense(6)]), k.Flatten(), k.Dense(3)],
        (4, 6),
    ),
    "rows": (lambda: [k.Dense(9, "leaky_relu"), k.BatchNormalization(), k.Dense(4, "softmax")], (4, 6)),
}
WAYS = {
    "int8": {"activation_dtype": "int8"},
    "uint8": {"activation_dtype": "uint8"},
    "per tensor": {"granularity": "per_tensor"},
    "symmetric, integer softmax": {"symmetric": True, "softmax": "integer"},
    "static of 4 bits": {"bits": 4, "activation_dtype": "uint8"},
    "dynamic": {"scheme": "dynamic"},
    "weights of 8 bits": {"scheme": "weight_only"},
    "weights of 8 bits in blocks": {"scheme": "weight_only", "granularity": "block"},
    "weights of 4 bits": {"scheme": "weight_only", "bits": 4},
    "weights of 4 bits in blocks": {"scheme": "weight_only", "bits": 4, "granularity": "block", "block_size": 16},
}
FLAVOURS = {"static": ["qdq", "qoperator"], "dynamic": ["dynamic"], "weight_only": ["weight_only"]}
OPSETS = [13, 14, 15, 16, 17, 18, 19, 20, 21]


def model_of(name):
    layers, shape = STACKS[name]
    return randomise(made(layers(), shape, "float32"))


def runs(proto, model, rows):
    """Loads and runs at batch 1, 7 and 64; the outputs, each batch predicted by itself."""
    session = onnxruntime.InferenceSession(serialize(proto), providers=["CPUExecutionProvider"])
    for batch in (rows[:1], rows[:7], rows[:64]):
        outputs = session.run(None, {"input": batch})
        expected = model.predict(batch)
        assert outputs[-1].shape == expected.shape
        assert np.isfinite(outputs[-1]).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_quantized_in_every_way(stack, way, tmp_path):
    model = model_of(stack)
    options = WAYS[way]
    quantized = quantize(model, data(model, 300, 1), **options)
    scheme, turn = options.get("scheme", "static"), zlib.crc32(f"{stack} {way}".encode())
    in_blocks = options.get("granularity") == "block"
    needed = 21 if in_blocks or (options.get("bits") == 4 and scheme == "weight_only") else 13
    # An opset of its own for each, so that all have their turn; and the one that is taken by default.
    for flavour, opset in itertools.product(FLAVOURS[scheme], (None, max(needed, OPSETS[turn % len(OPSETS)]))):
        labels = turn % 2 == 0 and stack != "positions"
        proto = to_onnx(quantized, tmp_path / "m.onnx", flavour=flavour, opset=opset, labels=labels)
        onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
        rows = data(model, 500, 2)
        result = verify_onnx(tmp_path / "m.onnx", quantized, rows)
        assert result.agrees, (flavour, opset, result)
        runs(proto, quantized, rows)
        if scheme == "weight_only":
            assert result.tolerance == 1e-5
        elif result.integers is not None and not result.saturates:
            exact = flavour == "qoperator" and all(
                layer.output_format is not None for layer in quantized.network.layers
            )
            assert result.differing_integers <= (0 if exact else result.integers / 1000), result
            assert result.max_integer_difference <= 1, result


@pytest.mark.parametrize("opset", [*OPSETS, newest_opset()])
@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_in_float_and_every_opset(stack, opset, tmp_path):
    model = model_of(stack)
    fold = opset % 2 == 0
    proto = to_onnx(model, tmp_path / "m.onnx", opset=opset, fold_batch_norm=fold, verify=False)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    if opset > ALWAYS_LOADABLE:
        return
    rows = data(model, 100)
    runs(proto, model, rows)
    result = verify_onnx(tmp_path / "m.onnx", model, rows)
    assert result.agrees
    assert result.tolerance == 1e-5


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("scheme", FLAVOURS)
def test_every_activation_quantized(scheme, activation):
    model = randomise(made([k.Dense(12, activation), k.Dense(4, "softmax")], (7,), "float32"))
    quantized = quantize(model, data(model, 300, 1), scheme=scheme)
    for flavour in FLAVOURS[scheme]:
        result = verify_onnx(to_onnx(quantized, flavour=flavour, verify=False), quantized, data(model, 500, 2))
        assert result.agrees, (flavour, result)
        if result.integers is not None and not result.saturates:
            assert result.differing_integers <= result.integers / 1000, result
            assert result.max_integer_difference <= 1, result


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("final", ["linear", "softmax", "relu"])
def test_integers_from_the_first_to_the_last(dtype, final, tmp_path):
    """A user's MLP with relu becomes nothing but integer operators in between."""
    hidden = [k.Dense(40), k.BatchNormalization(), k.ReLU(), k.Dense(20, use_bias=False), k.ReLU()]
    model = randomise(made([*hidden, k.Dense(5, final)], (30,), "float32"))
    quantized = quantize(model, data(model, 300, 1), activation_dtype=dtype)
    for flavour in ("qdq", "qoperator"):
        proto = to_onnx(quantized, flavour=flavour)
        result = verify_onnx(proto, quantized, data(model, 1000, 2))
        assert result.saturates or result.differing_integers == 0
        names = optimised(proto, tmp_path)
        first, last = names.index("QuantizeLinear"), names.index("DequantizeLinear")
        assert (first, last) == (0, len(names) - 1 - (final == "softmax"))
        assert all(name == "QGemm" or name.startswith("QLinear") for name in names[1:last]), names


def test_residual_blocks_of_uint8_are_integers(tmp_path):
    block = [k.Dense(24, "relu"), k.Dense(16)]
    model = randomise(made([k.Dense(16, "relu"), k.Residual(block), k.ReLU(), k.Dense(5)], (13,), "float32"))
    calibration = data(model, 300, 1)
    quantized = quantize(model, calibration, activation_dtype="uint8")
    for flavour in ("qdq", "qoperator"):
        names = optimised(to_onnx(quantized, flavour=flavour), tmp_path)
        assert names[0] == "QuantizeLinear"
        assert names[-1] == "DequantizeLinear"
        assert sorted(set(names[1:-1])) in (["QGemm", "QLinearAdd"], ["Clip", "QGemm", "QLinearAdd"]), names
