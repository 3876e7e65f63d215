"""Stacks of layers of every kind, by name: what is to hold of each layer is tried on all."""

import numpy as np

import nbdense as nb
from nbdense import layers as k
from nbdense.layers.fake_quantization import FakeQuantize, FakeQuantizedDense, FakeQuantizedResidual


def made(layers, shape, dtype="float64", seed=3):
    model = nb.Sequential([k.Input(shape), *layers], dtype=dtype)
    model.seed = seed
    return model


def randomise(model, seed=5):
    """Parameters away from their initial ones, so that no factor of 1 or 0 hides a fault."""
    rng = np.random.default_rng(seed)
    for name, view in model.parameters.items():
        positive = any(word in name for word in ("variance", "scale", "factor"))
        view[...] = rng.uniform(0.5, 1.5, view.shape) if positive else rng.normal(size=view.shape) * 0.7
    return model


STACKS = {
    "dense": (lambda: [k.Dense(4, "tanh"), k.Dense(3)], (5,)),
    "activation in the dense row": (lambda: [k.Dense(4), k.Activation("tanh"), k.Dense(3), k.ReLU()], (5,)),
    "activation on the input": (lambda: [k.Activation("sigmoid"), k.Dense(3)], (5,)),
    "two activations": (lambda: [k.Dense(4, "tanh"), k.ReLU(), k.Activation("sigmoid"), k.Dense(3)], (5,)),
    "softmax amid": (lambda: [k.Dense(4), k.Softmax(), k.Dense(3)], (5,)),
    "layer norm": (lambda: [k.Dense(7, "relu"), k.LayerNormalization(), k.Dense(3)], (5,)),
    "layer norm first and last": (lambda: [k.LayerNormalization(), k.Dense(3), k.LayerNormalization()], (5,)),
    "layer norm bare": (lambda: [k.Dense(18), k.LayerNormalization(center=False, scale=False), k.Dense(2)], (5,)),
    "rms norm": (lambda: [k.Dense(7, "relu"), k.RMSNormalization(), k.Dense(3)], (5,)),
    "rms norms of positions": (
        lambda: [k.RMSNormalization(epsilon=0.1), k.Residual([k.RMSNormalization(), k.Dense(19, "tanh"), k.Dense(4)])],
        (3, 4),
    ),
    "batch norm": (lambda: [k.Dense(7), k.BatchNormalization(), k.ReLU(), k.Dense(3)], (5,)),
    "batch norm first and last": (lambda: [k.BatchNormalization(), k.Dense(3), k.BatchNormalization()], (5,)),
    "batch norms in a row": (lambda: [k.Dense(4), k.BatchNormalization(scale=False), k.BatchNormalization()], (5,)),
    "frozen batch norm": (lambda: [k.Dense(7), k.BatchNormalization(trainable=False), k.Dense(3)], (5,)),
    "residual": (lambda: [k.Residual([k.Dense(5, "relu"), k.Dense(5)]), k.Dense(2)], (5,)),
    "residual with projection": (lambda: [k.Residual([k.Dense(6, "tanh")]), k.ReLU(), k.Dense(2)], (5,)),
    "residual of the input": (lambda: [k.Residual([k.Activation("tanh")]), k.Dense(2)], (5,)),
    "residuals in residuals": (
        lambda: [k.Residual([k.Dense(4, "relu"), k.Residual([k.BatchNormalization(), k.Dense(4)])]), k.ReLU()],
        (4,),
    ),
    "relu before a fork": (lambda: [k.Dense(6, "relu"), k.Residual([k.Dense(6)]), k.Dense(2)], (5,)),
    "relu before a fork that begins with an activation": (
        lambda: [k.Dense(6, "relu"), k.Residual([k.Activation("tanh"), k.Dense(6)]), k.Dense(2)],
        (5,),
    ),
    "linear before a fork that begins with an activation": (
        lambda: [k.Dense(6), k.Residual([k.ReLU(), k.Dense(6)]), k.Dense(2)],
        (5,),
    ),
    "positions": (lambda: [k.Dense(4, "relu"), k.LayerNormalization(), k.Dense(3)], (3, 5)),
    "many axes": (lambda: [k.Dense(4, "tanh"), k.BatchNormalization(), k.Dense(3)], (2, 3, 5)),
    "flatten": (lambda: [k.Flatten(), k.Dense(3)], (2, 3, 5)),
    "flatten amid": (lambda: [k.Dense(4, "relu"), k.Flatten(), k.Dense(3)], (3, 5)),
    "flatten behind a norm": (lambda: [k.Dense(19), k.BatchNormalization(), k.Flatten()], (3, 5)),
    "transformer's block": (
        lambda: [k.Residual([k.LayerNormalization(), k.Dense(8, "relu"), k.Dense(5)]), k.LayerNormalization()],
        (4, 5),
    ),
    "nothing": (lambda: [k.Flatten()], (5,)),
    "dropout": (lambda: [k.Dropout(0.3), k.Dense(9, "relu"), k.Dropout(0.5), k.Dense(3)], (5,)),
    "dropout between sigmoid and norm": (
        lambda: [k.Dense(17, "sigmoid"), k.Dropout(0.5), k.BatchNormalization(), k.Dense(3), k.Dropout(0.2)],
        (2, 5),
    ),
    "everything": (
        lambda: [
            k.Dense(9),
            k.BatchNormalization(),
            k.ReLU(),
            k.Dropout(0.25),
            k.Residual([k.LayerNormalization(), k.Dense(12, "tanh"), k.Dropout(0.5), k.Dense(9)]),
            k.BatchNormalization(),
            k.Flatten(),
            k.Dense(3),
        ],
        (2, 5),
    ),
    "penalties on activities": (
        lambda: [
            k.ActivityRegularization(l2=0.05),
            k.Dense(18, "tanh", activity_regularizer=nb.L1L2(0.1, 0.2)),
            k.Dense(6, activity_regularizer="l2"),
            k.ReLU(),
            k.ActivityRegularization(0.3),
            k.LayerNormalization(),
            k.Dense(3, "sigmoid", activity_regularizer="l1"),
        ],
        (2, 5),
    ),
    "dropout of none": (lambda: [k.Dropout(0.0), k.Dense(3)], (5,)),
}


def fake_quantized(residual=False):
    """Layers that round, whose values are stairs: tests/quant/test_aware.py holds their gradients to other slopes."""
    projection = {"low": -2.0, "high": 3.0}
    inner = [FakeQuantizedDense(9, 4, activation="relu"), FakeQuantize(0.0, 5.0, name="inner")]
    return [
        FakeQuantize(-2.0, 2.0, learned=False, name="given"),
        FakeQuantizedDense(6, 4, activation="relu"),
        FakeQuantize(0.0, 4.0, "uint8"),
        k.Dropout(0.2),
        *([FakeQuantizedResidual(inner, projection, 4), FakeQuantize(-4.0, 9.0, name="sum")] if residual else []),
        FakeQuantizedDense(3),
        FakeQuantize(-3.0, 3.0, name="last"),
    ]


STAIRS = {
    "fake quantization": (fake_quantized, (5,)),
    "fake quantization of positions": (fake_quantized, (3, 5)),
    "fake quantization with a residual": (lambda: fake_quantized(True), (5,)),
}
# Those that ONNX has a form of its own for.
MORE_STACKS = {
    "conv-like input, flat": (lambda: [k.Flatten(), k.Dense(6, "relu"), k.BatchNormalization(), k.Dense(2)], (2, 3, 4)),
    "nothing but a flatten of axes": (lambda: [k.Flatten()], (2, 3)),
    "a flatten amid, of one position": (lambda: [k.Dense(4, "relu"), k.Flatten(), k.Dense(3)], (1, 5)),
    "one position that stays": (lambda: [k.Dense(4, "relu"), k.LayerNormalization(), k.Dense(3)], (1, 1, 5)),
    "norms of one column": (lambda: [k.Dense(1), k.LayerNormalization(), k.BatchNormalization()], (3, 2)),
    "without bias": (lambda: [k.Dense(4, use_bias=False), k.LayerNormalization(center=False)], (3, 5)),
    "softmax of positions": (lambda: [k.Dense(4, "relu"), k.Dense(3, "softmax")], (2, 3, 5)),
    "bare norms of positions": (
        lambda: [k.BatchNormalization(center=False, scale=False), k.LayerNormalization(center=False, scale=False)],
        (3, 5),
    ),
    "residual of positions": (lambda: [k.Residual([k.Dense(6, "gelu")]), k.Flatten(), k.ReLU(), k.Dense(2)], (2, 5)),
    "dropout only": (lambda: [k.Dropout(0.5)], (2, 5)),
}


def model_of(name, dtype="float32"):
    layers, shape = (STACKS | MORE_STACKS)[name]
    return randomise(made(layers(), shape, dtype))


def data(model, rows, seed=8):
    return np.random.default_rng(seed).standard_normal((rows, *model.network.input_shape), np.float32)
