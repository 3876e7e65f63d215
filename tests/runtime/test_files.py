"""Damaged files: whatever the library refuses, prediction by NumPy alone refuses too, by one error."""

import copy
import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import nbdense as nb
from nbdense import runtime
from nbdense.files import FileFormatError
from nbdense.quant import QuantizedModel, QuantizedNetwork
from nbdense.quant.layers.activations import exponentials
from nbdense.quant.model.network import (
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedFlatten,
    QuantizedSoftmax,
)
from tests.support.drawn_networks import Drawn
from tests.support.stacks import fake_quantized, made, randomise

JUNK = [None, -1, 0, 3, 0.5, -2.5, 1e39, True, "x", [], [0], [1, 2], {}, {"name": "elu", "alpha": "x"}]
# What training needs, and the runtime does not look at.
UNREAD = {
    "compiled",
    "masked",
    "seed",
    "epochs_trained",
    "report",
    "momentum",
    "rate",
    "l1",
    "l2",
    "options",
    "trainable",
}
UNREAD_ENDS = ("_initializer", "_regularizer", "_constraint")


def float_model():
    layers = [
        nb.Dense(4, "relu", kernel_regularizer="l2"),
        nb.BatchNormalization(),
        nb.Residual([nb.LayerNormalization(scale=False), nb.Dense(5, {"name": "hard_tanh", "alpha": [-1.0, None]})]),
        nb.RMSNormalization(),
        nb.ReLU(6.0, 0.1),
        nb.Dropout(0.2),
        nb.Flatten(),
        nb.LeakyReLU(0.1),
        nb.ELU(0.5),
        nb.Dense(3, use_bias=False),
        nb.Softmax(),
    ]
    return randomise(made(layers, (2, 3), "float32"))


def integer_model():
    d = Drawn(2)
    a, b, c, e = d.format(0.02), d.format(0.03), d.format(0.05), d.format(0.02)
    layers = [
        d.dense(7, 5, a, b, "relu6", alpha=4.0, positions=2),
        d.looked_up(5, 5, b, "tanh", positions=2)[0],
        QuantizedAdd("add", 5, (b[0], 1 / 128), (b[1], 0), *c, "relu6", 4.0, inputs=(1, 2), positions=2),
        QuantizedActivation("act", 5, *c, *e, d.table("silu", c, e), "silu", positions=2),
        QuantizedFlatten("flat", 5, *e, positions=2),
        QuantizedSoftmax("sm", 10, *e, -128, exponentials(e[0])),
    ]
    return QuantizedModel(QuantizedNetwork(layers, rounding="tflite"))


def mixed_model():
    d = Drawn(3)
    layers = [
        d.weight_only(6, 4, 4, 4, "elu"),
        d.dynamic(4, 4, granularity="per_tensor"),
        d.float_dense(4, 4, "leaky_relu"),
        FloatLayer("sum", "add", 4, inputs=(1, 3)),
        FloatLayer("norm", "layer_norm", 4, {"gamma": np.ones(4, np.float32)}, alpha=1e-3),
    ]
    return QuantizedModel(QuantizedNetwork(layers, final_activation="softmax"))


def sparse_model():
    d = Drawn(4)
    layers = [d.dense(21, 18, a := d.format(0.02), b := d.format(0.03)), d.dense(18, 3, b, a, name="last")]
    layers[0].kernel[:8, :16] = 0
    return nb.sparsify(QuantizedModel(QuantizedNetwork(layers)), choice={"d": "4x16", "last": "dense"})


MODELS = {
    "float": float_model,
    "fake-quantized": lambda: randomise(made(fake_quantized(True), (5,), "float32")),
    "integers": integer_model,
    "mixed": mixed_model,
    "sparse": sparse_model,
}


def parts_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    texts = json.loads(content[8 : 8 + length])["__metadata__"]
    return json.loads(texts["config"]), texts, load_tensors(content)


def leaves(entries, path=()):
    """Paths to all that a description holds, containers included."""
    items = entries.items() if isinstance(entries, dict) else enumerate(entries) if isinstance(entries, list) else ()
    for key, value in items:
        if key in UNREAD or str(key).endswith(UNREAD_ENDS):
            continue
        yield (*path, key)
        yield from leaves(value, (*path, key))


def edited(config, path, value):
    """A description with something in another's place; without a value, with it left out."""
    config = copy.deepcopy(config)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    if value is leaves:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return config


def outcome(load, path, x):
    """Return what a model predicts; None where its file is refused."""
    try:
        model = load(path)
    except FileFormatError as error:
        assert str(path) in str(error)
        return None
    shape = getattr(model, "network", model).input_shape
    return model.predict(x) if x.shape[1:] == shape else shape


def assert_same_outcome(path, x, what):
    mine, library = outcome(runtime.load_model, path, x), outcome(nb.load_model, path, x)
    assert library is not None or mine is None, f"{what}: the library refuses it"
    # It may refuse more: what no file of nbdense's says.
    if mine is not None and isinstance(library, np.ndarray):
        np.testing.assert_allclose(mine, library, rtol=1e-4, atol=1e-4, err_msg=str(what))


@pytest.mark.filterwarnings("ignore")  # what makes little sense may be warned of
@pytest.mark.parametrize("name", MODELS)
def test_descriptions(name, tmp_path):
    path = tmp_path / "model.nbd"
    model = MODELS[name]()
    model.save(path)
    config, texts, tensors = parts_of(path)
    shape = model.network.input_shape
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    refused = 0
    for place in leaves(config):
        # A layer that has no settings takes any.
        for value in [leaves, *JUNK][: -1 if place[-1] == "config" else None]:
            path.write_bytes(save_tensors(tensors, texts | {"config": json.dumps(edited(config, place, value))}))
            assert_same_outcome(path, x, (place, value))
            refused += outcome(runtime.load_model, path, x) is None
    assert refused > 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_tensors(name, tmp_path):
    path = tmp_path / "model.nbd"
    model = MODELS[name]()
    model.save(path)
    _, texts, tensors = parts_of(path)
    x = np.random.default_rng(0).normal(size=(5, *model.network.input_shape)).astype(np.float32)
    for key, value in tensors.items():
        changes = [
            {},
            {key: value.T.copy()},
            {key: value[..., :-1]},
            {key: value[None]},
            {key: np.zeros(0, value.dtype)},
            {key: value.astype(np.float64)},
            {key: value.astype(np.uint8)},
            {key: value.astype(np.int32)},
            {key: np.full_like(value, 120)},
            {key: -value},
            {key: np.zeros_like(value)},
            {key: value, f"{key}_more": value},
            {key: np.full(value.shape, np.nan, np.float32)},
        ]
        for change in changes:
            rest = {other: array for other, array in tensors.items() if other != key}
            path.write_bytes(
                save_tensors({name: np.ascontiguousarray(a) for name, a in (rest | change).items()}, texts)
            )
            assert_same_outcome(path, x, (key, {name: array.shape for name, array in change.items()}))


def test_truncated_and_newer(tmp_path):
    path = tmp_path / "model.nbd"
    integer_model().save(path)
    content = path.read_bytes()
    for cut in {0, 1, 7, 8, 9, len(content) - 1, *np.linspace(0, len(content) - 1, 40).astype(int).tolist()}:
        path.write_bytes(content[:cut])
        with pytest.raises(FileFormatError, match="damaged"):
            runtime.load_model(path)
    path.write_bytes(content)
    _, texts, tensors = parts_of(path)
    path.write_bytes(save_tensors(tensors, texts | {"format_version": "3"}))
    with pytest.raises(FileFormatError, match="upgrade nbdense"):
        runtime.load_model(path)


def test_the_rounding_of_format_1(tmp_path):
    """The rounding "tflite" of then is "gemmlowp" now."""
    path = tmp_path / "model.nbd"
    d = Drawn(1)
    layers = [d.dense(30, 40, d.format(0.02), d.format(0.03))]
    model = QuantizedModel(QuantizedNetwork(layers, rounding="gemmlowp"))
    model.save(path)
    config, texts, tensors = parts_of(path)
    changed = {"config": json.dumps(config | {"rounding": "tflite"}), "format_version": "1"}
    path.write_bytes(save_tensors(tensors, texts | changed))
    x = np.random.default_rng(0).normal(size=(500, 30)).astype(np.float32)
    np.testing.assert_array_equal(runtime.load_model(path).predict_integers(x), model.predict_integers(x))
