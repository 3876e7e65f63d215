"""One version of nbdense in one process: what it makes of drawn models, and pieces of work to time.

`benchmarks.commits` runs this file for each of two commits, so it uses public names that both have, and imports nothing
of benchmarks. It reads the name of an operation a line from stdin, and answers each with a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import nbdense as nb
from nbdense.export import to_onnx
from nbdense.layers import BatchNormalization, Dense, Dropout, Input, LayerNormalization, Residual

MODELS = 10
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu", "hard_swish", "softplus", "linear")
OPTIMIZERS = ("adam", "sgd", "rmsprop", "adamw", "nadam", "lion", "adagrad")
# What quantize is asked for, and the flavour of the file that comes of it
SCHEMES: dict[str, dict[str, Any]] = {
    "int8": {},
    "uint8": {"activation_dtype": "uint8", "range_method": "percentile"},
    "tflite": {"rounding": "tflite", "granularity": "per_tensor", "range_method": "mse"},
    "int4": {"bits": 4},
    "corrected": {"bias_correction": True, "equalize": True, "range_method": "entropy"},
    "dynamic": {"scheme": "dynamic"},
    "weight_only": {"scheme": "weight_only", "bits": 4, "granularity": "block", "block_size": 16},
}


def _digest(*arrays: Any) -> str:
    content = hashlib.sha256()
    for array in arrays:
        content.update(array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


def _model(number: int) -> tuple[Any, Any, Any]:
    """Draw a model, compiled, and rows for it."""
    rng = np.random.default_rng(number)
    n_in, classes = int(rng.integers(1, 70)), int(rng.integers(2, 12))
    layers: list[Any] = [Input((n_in,))]
    for _ in range(int(rng.integers(1, 4))):
        units, activation = int(rng.integers(1, 130)), str(rng.choice(ACTIVATIONS))
        kind = rng.integers(0, 5)
        layers.append(Dense(units, activation))
        if kind == 0:
            layers.append(BatchNormalization())
        elif kind == 1:
            layers.append(LayerNormalization())
        elif kind == 2:
            layers.append(Dropout(0.2))
        elif kind == 3:
            layers.append(Residual([Dense(units, activation), Dense(units)]))
    layers.append(Dense(classes, "softmax"))
    nb.set_random_seed(number)
    model = nb.Sequential(layers, dtype="float64" if number % 5 == 4 else "float32")
    model.compile(str(rng.choice(OPTIMIZERS)), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rows = int(rng.integers(150, 700))
    x = rng.normal(size=(rows, n_in)) * rng.uniform(0.5, 2.0, n_in)
    return model, x.astype(np.float32), rng.integers(0, classes, rows)


def _outcomes() -> dict[str, str]:
    """Return digests by name: of weights after three epochs, outputs, integers and files of each drawn model."""
    found = {}
    for number in range(MODELS):
        model, x, y = _model(number)
        logs = model.fit(x, y, batch_size=32, epochs=3, verbose=0).history
        found[f"model {number}: weights"] = _digest(*model.get_weights(), json.dumps(logs).encode())
        found[f"model {number}: predict, evaluate"] = _digest(model.predict(x), np.array(model.evaluate(x, y)))
        found[f"model {number}: float ONNX"] = _digest(to_onnx(model, verify=False).SerializeToString())
        for name, options in SCHEMES.items():
            made = nb.quantize(model, x, **options)
            answers = made.predict_integers(x) if made.network.ends_in_integers else made.predict(x)
            found[f"model {number}: {name}"] = _digest(answers, made.predict(x))
            if name != "tflite":  # ONNX's operators round otherwise
                found[f"model {number}: {name} ONNX"] = _digest(to_onnx(made, verify=False).SerializeToString())
    return found


class Timed:
    """Pieces of work of some tenths of a second each."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60_000, 54)).astype(np.float32), rng.integers(0, 7, 60_000)
        nb.set_random_seed(0)
        model = nb.Sequential([Input((54,)), Dense(256, "relu"), Dense(128, "relu"), Dense(7, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        small = nb.Sequential([Input((20,)), Dense(64, "relu"), Dense(64, "relu"), Dense(2, "softmax")])
        small.compile("adam", "sparse_categorical_crossentropy")
        few, labels = np.ascontiguousarray(x[:20_000, :20]), y[:20_000] % 2
        integers, row = nb.quantize(model, x[:512]), few[:1]

        def singly(predict: Callable[[Any], Any]) -> None:
            for _ in range(20_000):
                predict(row)

        self.works: dict[str, Callable[[], Any]] = {
            "training": lambda: model.fit(x, y, batch_size=256, epochs=1, verbose=0),
            "training, small": lambda: small.fit(few, labels, batch_size=32, epochs=5, verbose=0),
            "inference": lambda: [model.predict(x) for _ in range(5)],
            "inference, a row": lambda: singly(small.predict),
            "inference, int8": lambda: [integers.predict(x) for _ in range(10)],
            "quantization": lambda: [nb.quantize(model, x[:2048]) for _ in range(30)],
        }
        for work in self.works.values():  # compiles, and wakes the threads
            work()

    def seconds(self, name: str) -> float:
        """Do a piece of work once."""
        started = time.perf_counter()
        self.works[name]()
        return time.perf_counter() - started


def main() -> None:
    """Answer requests until stdin ends."""
    warnings.simplefilter("ignore")
    timed: Timed | None = None
    for line in sys.stdin:
        operation = line.strip()
        answer: Any
        if operation == "outcomes":
            answer = _outcomes()
        elif operation == "works":
            timed = Timed()
            answer = list(timed.works)
        else:
            assert timed is not None
            answer = timed.seconds(operation)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
