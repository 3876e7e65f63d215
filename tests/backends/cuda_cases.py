"""Cases that the CUDA engine is held to: each on both devices, in a process that has a GPU or simulates one.

``python -m tests.backends.cuda_cases group`` prints, as JSON, how far apart the devices' results are.
"""

import functools
import json
import os
import sys
import tempfile
import warnings
from unittest import mock

import numpy as np

import nbdense as nb
from nbdense import layers as k
from nbdense import optimizers, set_device
from nbdense.activations import ACTIVATIONS
from nbdense.engine.rows import ROW_KINDS, kind_of
from nbdense.losses import LOSSES
from nbdense.quant import prune, quantize
from nbdense.quant.model.program import Program
from nbdense.runtime.rounding import ROUNDINGS
from nbdense.training import phases
from nbdense.training.loop import LossNotFiniteError
from tests.library.test_extending import outsiders
from tests.support.builders import OBJECTIVES, draw_targets, make_model, workspace_and_data
from tests.support.stacks import STACKS, STAIRS, made, randomise

TRIED_KINDS = set()


def fitted(model, x, y, epochs=1, batch=3, **options):
    """Fit, evaluate and predict; return all that these leave."""
    history = model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, **options).history
    scores = model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)
    return [*history.values(), *scores.values(), *model.get_weights(), model.state.copy(), model.predict(x)]


def numbers(rows, shape, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, *shape))


def stack(name):
    def act():
        layers, shape = (STACKS | STAIRS)[name]
        model = randomise(made(layers(), shape))
        TRIED_KINDS.update(kind_of(row).name for row in [*model.network.layers, *model.network.inference])
        model.compile("adam", "mse", metrics=["mae"])
        return fitted(model, numbers(5, shape), numbers(5, model.network.output_shape, 1))

    return act


def activation(name):
    def act():
        model = make_model([3, 3, 2], [name, "linear"], "mse", "sgd")
        return fitted(model, 2 * numbers(3, (3,)), numbers(3, (2,), 1))

    return act


def loss(kind):
    def act():
        objective, last = next(pair for pair in OBJECTIVES if isinstance(pair[0], kind))
        model = make_model([3, 4, 3], ["tanh", last], objective, "sgd", metrics=["mae"] if not objective.sparse else [])
        y = draw_targets(np.random.default_rng(1), objective, 4, 3)
        return fitted(model, numbers(4, (3,)), y, sample_weight=np.array([1.0, 0.5, 2.0, 0.0]))

    return act


def optimizer(made_by):
    def act():
        model = make_model([2, 3, 2], ["relu", "linear"], "mse", made_by())
        return fitted(model, numbers(8, (2,)), numbers(8, (2,), 1))

    return act


def streamed():
    """Data that is too large for the device: two batches at a time, in shuffled order."""
    x, y, weights = numbers(11, (3,)), numbers(11, (2,), 1), np.linspace(0.5, 1.5, 11)
    model = make_model([3, 4, 2], ["tanh", "linear"], "mse", "adam", metrics=["mae"])
    with mock.patch.multiple("nbdense.backends.cuda.data", SHARE=0.0, SLICE=300):
        results = fitted(model, x, y, sample_weight=weights, epochs=2)
        workspace, data = workspace_and_data(model, x.astype(np.float16), y, batch=3)
        table = phases.training(model.network.layers)
        done, totals = workspace.run(table, data, count=4, epoch=5, shuffle=True, optimizer=model.optimizer)
        assert done == 4
    return [*results, totals, *model.get_weights()]


def with_parameters():
    """Activations with numbers of their own: one, and three; one that is a clamp; in rows of their own too."""
    names = [
        nb.activations.get("celu").with_alpha(0.3),
        nb.activations.get("relu").with_parameters(negative_slope=0.2, max_value=1.5, threshold=0.1),
        nb.activations.get("hard_tanh").with_alpha((-0.5, 0.25)),
    ]
    layers = [layer for name in names for layer in (k.Dense(4, name), k.LayerNormalization(), k.Activation(name))]
    model = randomise(made([*layers, k.Dense(3, "log_softmax"), k.Activation("log_softmax")], (3,)))
    model.compile("sgd", "mse")
    return fitted(model, numbers(4, (3,)), numbers(4, (3,), 1))


def penalised():
    layers = [k.Dense(4, "relu", kernel_regularizer=nb.L1L2(0.01, 0.02), bias_regularizer="l2"), k.Dense(2)]
    model = made(layers, (3,))
    model.compile(optimizers.AdamW(0.01), "mse")
    return fitted(model, numbers(5, (3,)), numbers(5, (2,), 1))


def pruned():
    model = prune(make_model([4, 8, 2], ["relu", "linear"], "mse", "adam"), sparsity=0.5)
    model.compile("adam", "mse")
    results = fitted(model, numbers(6, (4,)), numbers(6, (2,), 1))
    assert (model.get_weights()[0] == 0).any()
    return results


def projected():
    """A projection behind each step, also where a mask holds weights at zero."""
    layers = [k.Dense(6, "tanh", kernel_constraint=nb.constraints.MaxNorm(0.5)), k.Dense(2, bias_constraint="non_neg")]
    model = randomise(made(layers, (3,)))
    model.compile("adam", "mse")
    model = prune(model, sparsity=0.5)
    model.compile(optimizers.Adam(nb.ExponentialDecay(0.1, 2, 0.5)), "mse")
    results = fitted(model, numbers(7, (3,)), numbers(7, (2,), 1), epochs=2)
    kernel, _, _, bias = model.get_weights()
    assert (np.linalg.norm(kernel, axis=0) < 0.5 + 1e-6).all()
    assert (bias >= 0).all()
    return results


def accumulated():
    """Gradients of two batches a step, and statistics that move with each."""
    model = randomise(made([k.Dense(4), k.BatchNormalization(), k.ReLU(), k.Dense(2)], (3,)))
    model.compile(optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.2, gradient_accumulation_steps=2), "mse")
    return fitted(model, numbers(11, (3,)), numbers(11, (2,), 1), epochs=2)


def called_in_training():
    """Each call draws dropout anew and moves running statistics."""
    model = randomise(made([k.Dropout(0.3), k.Dense(4), k.BatchNormalization()], (3,)))
    x = numbers(5, (3,))
    return [model(x, training=True), model(x, training=True), model(x), *model.get_weights()]


def partly_frozen():
    model = made([k.Dense(4, "tanh", trainable=False), k.Dense(3, "tanh"), k.Dense(2)], (3,))
    model.compile("sgd", "mse")
    return fitted(model, numbers(5, (3,)), numbers(5, (2,), 1))


def customs():
    model = outsiders()
    x = numbers(5, (6,))
    return fitted(model, x, x[:, :2] - 0.5)


def saved():
    """A model that was trained on the device is as any other."""
    model = made([k.Dense(5, "mish"), k.Dense(2)], (3,))
    model.compile("adam", "mse")
    model.fit(numbers(5, (3,)), numbers(5, (2,), 1), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.safetensors")
        loaded = nb.load_model(f"{folder}/model.safetensors")
        nb.to_onnx(loaded, f"{folder}/model.onnx")
        read = nb.from_onnx(f"{folder}/model.onnx")
    return [loaded.predict(numbers(4, (3,), 2)), read.predict(numbers(4, (3,), 2))]


def own_loop():
    model = randomise(made([k.Dense(5, "tanh"), k.LayerNormalization(), k.Dense(2)], (3,)))
    model.compile("adam", "mse")
    outputs = model.forward(numbers(4, (3,)), training=True)
    deltas = model.backward(outputs - 0.5)
    model.apply_gradients()
    logs = model.train_on_batch(numbers(4, (3,), 2), numbers(4, (2,), 3), return_dict=True)
    return [outputs, deltas, *logs.values(), *model.get_weights()]


def not_finite():
    """The weights are those of the last finite step."""
    model = make_model([3, 3, 1], ["relu", "linear"], "mse", optimizers.SGD(1e160))
    try:
        model.fit(numbers(12, (3,)), numbers(12, (1,), 1), batch_size=3, epochs=2, verbose=0, shuffle=False)
    except LossNotFiniteError as error:
        return [len(str(error)), *model.get_weights()]
    raise AssertionError("the loss stayed finite")


def strange_data():
    """Any dtype and layout; targets of class numbers."""
    x = np.asfortranarray((10 * numbers(7, (3,))).astype(np.int16))[::-1]
    model = make_model([3, 4, 3], ["relu", "softmax"], "sparse_categorical_crossentropy", "sgd", metrics=["accuracy"])
    return fitted(model, x, np.arange(7) % 3, validation_data=(x[:3].astype(np.float16), np.arange(3)))


def wide():
    """Several tiles, none of them full."""
    model = make_model([9, 11, 5], ["relu", "linear"], "mse", "sgd", dtype="float32")
    return fitted(model, numbers(7, (9,)), numbers(7, (5,), 1))


def predicted(widths, activations):
    def act():
        model = make_model(widths, activations, "mse", dtype="float32")
        return [model.predict(numbers(21, (widths[0],)).astype(np.float32))]

    return act


def quantized(layers, shape, **options):
    x = numbers(11, shape).astype(np.float32)

    @functools.cache
    def network():
        """The first, the CPU's, for both: one program, run on each device."""
        return quantize(randomise(made(layers(), shape, "float32")), x, **options).network

    def act():
        program, strange = Program(network()), x.copy()
        strange[2] = np.nan
        flat = np.ascontiguousarray(strange.reshape(11, -1))
        integers = [program.integers(flat).astype(int)] if network().ends_in_integers else []
        return [*integers, program.values(flat)]

    return act


VARIANTS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, clipvalue=0.05),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.1),
    "adam": lambda: optimizers.Adam(nb.ExponentialDecay(0.1, 2, 0.5), global_clipnorm=0.2),
    "amsgrad": lambda: optimizers.Adam(0.1, amsgrad=True, use_ema=True, ema_overwrite_frequency=2),
    "adamw": lambda: optimizers.AdamW(0.1, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "lion with averages": lambda: optimizers.Lion(0.1, use_ema=True),
    "ftrl": lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.01),
    "adamax, decayed": lambda: optimizers.Adamax(0.1, weight_decay=0.1),
}

GROUPS = {
    "stacks": {name: stack(name) for name in STACKS | STAIRS},
    "activations": {name: activation(name) for name in ACTIVATIONS},
    "losses": {kind.__name__: loss(kind) for kind in sorted(set(LOSSES.values()), key=lambda kind: kind.__name__)},
    "optimizers": {name: optimizer(act) for name, act in (optimizers.OPTIMIZERS | VARIANTS).items()},
    "options": {
        act.__name__: act
        for act in (
            streamed,
            with_parameters,
            penalised,
            pruned,
            projected,
            accumulated,
            called_in_training,
            partly_frozen,
            customs,
            saved,
            own_loop,
            not_finite,
            strange_data,
            wide,
        )
    },
    "inference": {
        "one launch": predicted([5, 9, 7, 3], ["relu", "gelu", "softmax"]),
        "one launch, whole vectors": predicted([16, 8, 4], ["relu6", "linear"]),
        "a launch a layer": predicted([5, 40, 3], ["tanh", "softmax"]),
        "int8": quantized(lambda: [k.Dense(20, "relu"), k.Dense(7, "tanh"), k.Dense(3, "softmax")], (9,)),
        **{
            f"int8, {rounding}": quantized(
                lambda: [k.Residual([k.Dense(8, "relu"), k.Dense(6)]), k.Dense(3)], (6,), rounding=rounding
            )
            for rounding in ROUNDINGS
        },
        "int8 beside floats": quantized(
            lambda: [k.Residual([k.Dense(8, "gelu"), k.Dense(6)]), k.LayerNormalization(), k.Dense(3, "softmax")], (6,)
        ),
        "weight only": quantized(lambda: [k.Dense(20, "gelu"), k.Dense(3)], (9,), scheme="weight_only"),
        "int8 of positions": quantized(lambda: [k.Dense(6, "relu"), k.Flatten(), k.Dense(3)], (3, 5)),
    },
}


def gap(ours, theirs):
    """The largest difference, of integers infinite where they differ; both may be NaN in the same places."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.dtype.kind in "iu":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float("inf")
    scale = np.maximum(1.0, np.abs(theirs))
    return float(np.nan_to_num(np.abs(ours - theirs) / scale).max(initial=0.0))


def compared(act):
    set_device("cpu")
    theirs = act()
    set_device("cuda")
    ours, again = act(), act() if "--twice" in sys.argv else None
    assert len(ours) == len(theirs)
    same = again is None or all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, again, strict=True))
    return {"gap": max(map(gap, ours, theirs)), "same bits": bool(same)}


def main():
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        from tests.support.cuda_simulator import take_turns

        take_turns()
    warnings.simplefilter("ignore")  # the simulator runs kernels as Python, whose integers warn where they wrap
    results = {}
    for name, act in GROUPS[sys.argv[1]].items():
        results[name] = compared(act)
        print(name, results[name], file=sys.stderr)
    if sys.argv[1] == "stacks":
        assert {kind.name for kind in ROW_KINDS} == TRIED_KINDS, "a kind of row is in no stack"
    print(json.dumps(results))


if __name__ == "__main__":
    main()
