"""Writes keras_activations.json: what Keras's activations make of an array, by the names and arguments people use.

    python tests/golden/make_keras_activations.py

Run it where Keras 3 and jax are installed. Each case is a call: the name in ``keras.activations`` or ``keras.layers``,
its arguments, and the outputs for ``x``, in float64.
"""

import json
import os
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1"}

import keras
import numpy as np

keras.config.set_floatx("float64")

CALLS = [
    ("celu", {}),
    ("celu", {"alpha": 0.5}),
    ("elu", {}),
    ("elu", {"alpha": 0.3}),
    ("exponential", {}),
    ("gelu", {}),
    ("gelu", {"approximate": True}),
    ("hard_shrink", {}),
    ("hard_shrink", {"threshold": 1.5}),
    ("hard_sigmoid", {}),
    ("hard_silu", {}),
    ("hard_swish", {}),
    ("hard_tanh", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.01}),
    ("linear", {}),
    ("log_sigmoid", {}),
    ("log_softmax", {}),
    ("log_softmax", {"axis": 0}),
    ("mish", {}),
    ("relu", {}),
    ("relu", {"negative_slope": 0.1}),
    ("relu", {"max_value": 2.0}),
    ("relu", {"max_value": 6}),
    ("relu", {"threshold": 1.0}),
    ("relu", {"negative_slope": 0.1, "max_value": 2.0, "threshold": 0.7}),
    ("relu6", {}),
    ("selu", {}),
    ("sigmoid", {}),
    ("silu", {}),
    ("soft_shrink", {}),
    ("soft_shrink", {"threshold": 1.5}),
    ("softmax", {}),
    ("softmax", {"axis": 0}),
    ("softmax", {"axis": [0, 1]}),
    ("softplus", {}),
    ("softsign", {}),
    ("sparse_plus", {}),
    ("sparse_sigmoid", {}),
    ("squareplus", {}),
    ("squareplus", {"b": 0.5}),
    ("swish", {}),
    ("tanh", {}),
    ("tanh_shrink", {}),
    ("threshold", {"threshold": 0.5, "default_value": -2.0}),
]
LAYERS = [
    ("Activation", {"activation": "softsign"}),
    ("ELU", {"alpha": 0.5}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.1}),
    ("ReLU", {}),
    ("ReLU", {"max_value": 2.0, "negative_slope": 0.2, "threshold": 1.0}),
    ("ReLU", {"max_value": 0.5}),
    ("Softmax", {}),
    ("Softmax", {"axis": 0}),
]


def main() -> None:
    x = np.random.default_rng(8).normal(0, 2, (4, 5)).round(4)
    cases = []
    for room, calls in (("activations", CALLS), ("layers", LAYERS)):
        for name, arguments in calls:
            given = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
            thing = getattr(getattr(keras, room), name)
            tensor = keras.ops.convert_to_tensor(x, "float64")
            y = thing(tensor, **given) if room == "activations" else thing(**given)(tensor)
            cases.append({"room": room, "name": name, "arguments": arguments, "y": np.asarray(y, np.float64).tolist()})
    content = {"keras": keras.__version__, "x": x.tolist(), "cases": cases}
    Path(__file__).with_name("keras_activations.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
