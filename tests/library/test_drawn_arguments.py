"""Arguments that make no sense: TypeError or ValueError, never anything else, and the model stays as it was."""

import functools
import inspect
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbdense as nb
from nbdense import layers as k
from nbdense.initializers import INITIALIZERS
from nbdense.layers import LAYERS
from nbdense.losses import LOSSES
from nbdense.metrics import METRICS
from nbdense.optimizers import OPTIMIZERS, Optimizer
from nbdense.regularizers import REGULARIZERS
from nbdense.schedules import SCHEDULES
from tests.support.strategies import anything

RNG = np.random.default_rng(0)
X, Y, LABELS = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2)), np.array([0, 1, 1, 0])
ANYTHING = anything((4, 3), (4, 2), (4,))


def model_for(loss="mse"):
    model = nb.Sequential([k.Input((3,)), k.Dense(4, "relu"), k.Dense(2, "linear" if loss == "mse" else "softmax")])
    model.seed = 1
    model.compile("sgd", loss)
    return model


LOSSES_TRIED = "mse", "sparse_categorical_crossentropy", "categorical_crossentropy"


@functools.cache
def quantized():
    """A quantized model, made by the first test that wants it: compiling it takes longer than collecting all tests."""
    return nb.quantize(model_for(), X)


CALLS = {
    "fit x": lambda m, a: m.fit(a, LABELS, verbose=0),
    "fit y": lambda m, a: m.fit(X, a, verbose=0),
    "fit sample_weight": lambda m, a: m.fit(X, LABELS, verbose=0, sample_weight=a),
    "fit class_weight": lambda m, a: m.fit(X, LABELS, verbose=0, class_weight=a),
    "fit validation_data": lambda m, a: m.fit(X, LABELS, verbose=0, validation_data=a),
    "fit validation x": lambda m, a: m.fit(X, LABELS, verbose=0, validation_data=(a, LABELS)),
    "fit validation_split": lambda m, a: m.fit(X, LABELS, verbose=0, validation_split=a),
    "fit callbacks": lambda m, a: m.fit(X, LABELS, verbose=0, callbacks=a),
    "fit batch_size": lambda m, a: m.fit(X, LABELS, verbose=0, batch_size=a),
    "fit initial_epoch": lambda m, a: m.fit(X, LABELS, verbose=0, initial_epoch=a),
    "evaluate x": lambda m, a: m.evaluate(a, LABELS),
    "evaluate y": lambda m, a: m.evaluate(X, a),
    "train_on_batch y": lambda m, a: m.train_on_batch(X, a),
    "predict": lambda m, a: m.predict(a),
    "forward": lambda m, a: m.forward(a),
    "backward": lambda m, a: (m.forward(X), m.backward(a)),
    "saliency": lambda m, a: m.saliency(a),
    "saliency output": lambda m, a: m.saliency(X, a),
    "diagnose y": lambda m, a: m.diagnose(X, a),
    "importance y": lambda m, a: m.importance(X, a),
    "set_weights": lambda m, a: m.set_weights(a),
    "set_weights of one": lambda m, a: m.set_weights([*(weight + 1 for weight in m.get_weights()[:-1]), a]),
    "compile optimizer": lambda m, a: m.compile(a, "mse"),
    "compile loss": lambda m, a: m.compile("sgd", a),
    "compile metrics": lambda m, a: m.compile("sgd", "mse", a),
    "get_layer": lambda m, a: m.get_layer(a),
    "get_layer index": lambda m, a: m.get_layer(index=a),
    "Sequential": lambda m, a: nb.Sequential(a),
    "Residual": lambda m, a: k.Residual(a),
    "quantize": lambda m, a: nb.quantize(m, a),
    "quantize model": lambda m, a: nb.quantize(a, X),
    "prune": lambda m, a: nb.prune(m, a),
    "sparsify": lambda m, a: nb.sparsify(m, choice=a),
    "sparsify model": lambda m, a: nb.sparsify(a, choice="1x1"),
    "compare": lambda m, a: nb.compare(m, quantized(), a),
    "QuantizedModel.predict": lambda m, a: quantized().predict(a),
    "to_onnx": lambda m, a: nb.to_onnx(a),
    "to_onnx class_names": lambda m, a: nb.to_onnx(m, class_names=a, verify=False),
    "MLPClassifier.fit X": lambda m, a: nb.MLPClassifier((3,), max_iter=1).fit(a, LABELS),
    "MLPClassifier.fit y": lambda m, a: nb.MLPClassifier((3,), max_iter=1).fit(X, a),
    "MLPRegressor.fit y": lambda m, a: nb.MLPRegressor((3,), max_iter=1).fit(X, a),
}


@pytest.mark.parametrize("call", CALLS)
@given(loss=st.sampled_from(LOSSES_TRIED), argument=ANYTHING)
def test_calls(call, loss, argument):
    model = model_for(loss)
    before = model.network.params.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # advice, NumPy's on masked numbers, scikit-learn's on epochs
        warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="sklearn")
        try:
            CALLS[call](model, argument)
        except (TypeError, ValueError, FloatingPointError):
            np.testing.assert_array_equal(model.network.params, before)


# What constructors must be given.
GIVEN = {
    "activation": "relu",
    "boundaries": [10],
    "decay_rate": 0.5,
    "decay_steps": 10,
    "filepath": "model",
    "first_decay_steps": 10,
    "high": 1.0,
    "initial_learning_rate": 0.1,
    "layers": [k.Dense(2)],
    "low": -1.0,
    "max_learning_rate": 0.1,
    "rate": 0.5,
    "schedule": lambda epoch: 0.1,
    "shape": (3,),
    "total_steps": 10,
    "units": 3,
    "values": [0.1, 0.01],
}
TABLES = LAYERS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES, REGULARIZERS, INITIALIZERS
CALLBACKS = nb.EarlyStopping, nb.ReduceLROnPlateau, nb.ModelCheckpoint, nb.LearningRateScheduler
CLASSES = list(dict.fromkeys([*(row for table in TABLES for row in table.values()), *CALLBACKS]))


def options_of(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    if issubclass(kind, Optimizer):
        parameters += inspect.signature(Optimizer).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__.split('.')[1]}.{kind.__name__}")
@given(argument=ANYTHING)
def test_constructors(kind, argument):
    options = options_of(kind)
    given = {name: value for name, value in GIVEN.items() if name in options}
    for option in options:
        with warnings.catch_warnings(), suppress(TypeError, ValueError):
            warnings.simplefilter("ignore", UserWarning)
            kind(**given | {option: argument})
