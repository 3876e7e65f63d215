"""Write keras_optimizers.json: what Keras's optimizers, schedules and RMSNormalization say and compute.

Run where Keras 3 is installed, as `KERAS_BACKEND=jax JAX_ENABLE_X64=1 python tests/golden/make_keras_optimizers.py`.
Steps of optimizers by themselves are in optimizers.npz, which make_optimizers.py writes.
"""

import inspect
import json
import pathlib

import jax
import keras
import numpy as np

OPTIMIZERS = ["SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW", "Adamax", "Nadam", "Lion", "Ftrl"]
SCHEDULES = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.6}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.6, "staircase": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [5, 12], "values": [0.1, 0.05, 0.01]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9}),
    (
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 9, "end_learning_rate": 0.01, "power": 2.0, "cycle": True},
    ),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 15}),
    (
        "CosineDecay",
        {"initial_learning_rate": 0.01, "decay_steps": 12, "alpha": 0.1, "warmup_target": 0.1, "warmup_steps": 6},
    ),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 6}),
    (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 5, "t_mul": 1.0, "m_mul": 0.8, "alpha": 0.05},
    ),
]
CALLBACKS = [
    *("Callback", "CallbackList", "History", "EarlyStopping", "ModelCheckpoint", "ReduceLROnPlateau", "CSVLogger"),
    *("LearningRateScheduler", "LambdaCallback", "TerminateOnNaN", "BackupAndRestore", "SwapEMAWeights"),
    "ProgbarLogger",
]
HOOKS = [name for name in vars(keras.callbacks.Callback) if name.startswith(("on_", "set_"))]


def arguments(kind):
    """Arguments of a class with their defaults; those without one are null."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    named = [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    return {each.name: None if each.default is each.empty else each.default for each in named}


def config_of(thing):
    return {key: value for key, value in thing.get_config().items() if key != "name"}


def slots(name):
    """Shapes of an optimizer's variables, of a kernel and a bias, in their order."""
    optimizer = getattr(keras.optimizers, name)()
    optimizer.build([keras.Variable(np.zeros((3, 5))), keras.Variable(np.zeros(5))])
    return [list(variable.shape) for variable in optimizer.variables]


def normalised():
    """RMSNormalization of rows, with another scale, and the gradients of a weighted sum of the outputs."""
    rng = np.random.default_rng(0)
    x, scale, weights = rng.normal(1.0, 3.0, (6, 2, 5)), rng.normal(size=5), rng.normal(size=(6, 2, 5))
    cases = []
    for options in ({}, {"epsilon": 0.5}):
        layer = keras.layers.RMSNormalization(dtype="float64", **options)
        layer.build(x.shape)

        def outputs(x, scale, layer=layer):
            return layer.stateless_call([scale], [], x)[0]

        gradients = jax.grad(lambda x, s: (outputs(x, s) * weights).sum(), argnums=(0, 1))(x, scale)
        cases.append(
            {
                "arguments": options,
                "outputs": np.asarray(outputs(x, scale)).tolist(),
                "gradients": [np.asarray(part).tolist() for part in gradients],
            }
        )
    return {"x": x.tolist(), "scale": scale.tolist(), "weights": weights.tolist(), "cases": cases}


def main():
    keras.config.set_floatx("float64")
    golden = {
        "keras": keras.__version__,
        "optimizers": {
            name: {
                "arguments": arguments(getattr(keras.optimizers, name)),
                "config": config_of(getattr(keras.optimizers, name)()),
                "variables": slots(name),
            }
            for name in OPTIMIZERS
        },
        "schedules": [
            {
                "name": name,
                "arguments": options,
                "signature": arguments(getattr(keras.optimizers.schedules, name)),
                "config": getattr(keras.optimizers.schedules, name)(**options).get_config(),
                "rates": [float(getattr(keras.optimizers.schedules, name)(**options)(step)) for step in range(25)],
            }
            for name, options in SCHEDULES
        ],
        "callbacks": {name: arguments(getattr(keras.callbacks, name)) for name in CALLBACKS},
        "hooks": HOOKS,
        "rms_normalization": normalised(),
    }
    path = pathlib.Path(__file__).with_name("keras_optimizers.json")
    path.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
