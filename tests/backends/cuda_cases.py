"""Cases that the CUDA engine is held to: each on both devices, in a process that has a GPU or simulates one.

``python -m tests.backends.cuda_cases group`` prints, as JSON, how far apart the devices' results are.
"""

import contextlib
import functools
import itertools
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
from nbdense.backends.cuda.fused import plan, tiles
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


def fuses(model, batch=3):
    """Tell whether one launch takes steps of the model."""
    return plan.plan_of(model.network, model.network.layers, batch) is not None


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


def fused_activation(name):
    def act():
        hidden = "tanh" if ACTIVATIONS[name].rowwise else name
        model = make_model([3, 4, 3, 2], [hidden, "relu", name], "mse", "sgd", metrics=["mae"], dtype="float32")
        assert fuses(model)
        return fitted(model, numbers(4, (3,)), numbers(4, (2,), 1))

    return act


def loss(kind, dtype="float64"):
    def act():
        objective, last = next(pair for pair in OBJECTIVES if isinstance(pair[0], kind))
        metrics = ["mae"] if not objective.sparse else []
        model = make_model([3, 4, 3], ["tanh", last], objective, "sgd", metrics=metrics, dtype=dtype)
        assert fuses(model) is (dtype == "float32")
        y = draw_targets(np.random.default_rng(1), objective, 4, 3)
        return fitted(model, numbers(4, (3,)), y, sample_weight=np.array([1.0, 0.5, 2.0, 0.0]))

    return act


def optimizer(made_by, dtype="float64"):
    def act():
        model = make_model([2, 3, 2], ["relu", "linear"], "mse", made_by(), dtype=dtype)
        return fitted(model, numbers(8, (2,)), numbers(8, (2,), 1))

    return act


def streamed(dtype="float64"):
    """Data that is too large for the device: two batches at a time, in shuffled order."""
    x, y, weights = numbers(11, (3,)), numbers(11, (2,), 1), np.linspace(0.5, 1.5, 11)
    model = make_model([3, 4, 2], ["tanh", "linear"], "mse", "adam", metrics=["mae"], dtype=dtype)
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


def penalised(dtype="float64"):
    layers = [k.Dense(4, "relu", kernel_regularizer=nb.L1L2(0.01, 0.02), bias_regularizer="l2"), k.Dense(2)]
    model = made(layers, (3,), dtype)
    model.compile(optimizers.AdamW(0.01), "mse")
    return fitted(model, numbers(5, (3,)), numbers(5, (2,), 1))


def pruned(dtype="float64"):
    model = prune(make_model([4, 8, 2], ["relu", "linear"], "mse", "adam", dtype=dtype), sparsity=0.5)
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


def partly_frozen(dtype="float64"):
    """Below, where the way back ends; and above, where it goes on."""
    layers = [k.Dense(4, "tanh", trainable=False), k.Dense(3, "tanh"), k.Dense(3, "relu", trainable=False), k.Dense(2)]
    model = made(layers, (3,), dtype)
    model.compile("sgd", "mse")
    return fitted(model, numbers(5, (3,)), numbers(5, (2,), 1))


def learning_by_turns(dtype="float64"):
    """One workspace, whose last layer learns or does not: a table that is the same, and steps that are not."""
    model = make_model([3, 4, 4, 2], ["tanh", "tanh", "linear"], "mse", "sgd", dtype=dtype)
    workspace, data = workspace_and_data(model, numbers(9, (3,)), numbers(9, (2,), 1), batch=3)
    results = []
    for learns in (False, True, False):
        model.network.segments["trainable"][-2:] = learns
        before = [*map(np.array, model.get_weights())]
        workspace.run(phases.training(model.network.layers), data, count=3, optimizer=model.optimizer)
        results += model.get_weights()
        changed = [not np.array_equal(*pair) for pair in zip(before, results[-6:], strict=True)]
        assert changed == 4 * [True] + 2 * [learns]
    return results


def customs(dtype="float64"):
    model = outsiders(dtype)
    assert fuses(model) is (dtype == "float32")
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


def not_finite(dtype="float64", rate=1e160):
    """The weights are those of the last finite step."""
    model = make_model([3, 3, 1], ["relu", "linear"], "mse", optimizers.SGD(rate), dtype=dtype)
    try:
        model.fit(numbers(12, (3,)), numbers(12, (1,), 1), batch_size=3, epochs=2, verbose=0, shuffle=False)
    except LossNotFiniteError as error:
        return [len(str(error)), *model.get_weights()]
    raise AssertionError("the loss stayed finite")


def not_taken(dtype="float64", large=1e200):
    """A step whose loss is not finite leaves the weights as they are."""
    model = make_model([3, 4, 1], ["relu", "linear"], "mse", "sgd", dtype=dtype)
    weights = model.get_weights()
    with contextlib.suppress(LossNotFiniteError):
        model.train_on_batch(np.full((5, 3), large), np.ones((5, 1)))
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    return [model.evaluate(numbers(5, (3,)), numbers(5, (1,), 1), verbose=0)]


def dead_unit():
    """An infinite weight in front of a relu, which is of no consequence: nor in rows that fill a block."""
    model = make_model([3, 4, 2], ["relu", "linear"], "mse", "sgd", dtype="float32")
    model.network.tensor(model.network.parameters[0])[1, 2] = -np.inf
    model.fit(np.abs(numbers(5, (3,))), numbers(5, (2,), 1), batch_size=3, verbose=0)
    weights = model.get_weights()
    assert np.isfinite(weights[2]).all()
    return weights[1:]


def strange_data(dtype="float64"):
    """Any dtype and layout; targets of class numbers."""
    x = np.asfortranarray((10 * numbers(7, (3,))).astype(np.int16))[::-1]
    model = make_model(
        [3, 4, 3], ["relu", "softmax"], "sparse_categorical_crossentropy", "sgd", metrics=["accuracy"], dtype=dtype
    )
    return fitted(model, x, np.arange(7) % 3, validation_data=(x[:3].astype(np.float16), np.arange(3)))


def wide():
    """Several tiles, none of them full."""
    model = make_model([9, 11, 5], ["relu", "linear"], "mse", "sgd", dtype="float32")
    return fitted(model, numbers(7, (9,)), numbers(7, (5,), 1))


def blocks():
    """Batches of one row; of one under and over a block's, with rows behind them that leave blocks without any."""
    rows, results = plan.TILES[0].rows, []
    for batch in (1, rows - 1, rows, rows + 1):
        model = make_model([5, 7, 2], ["relu", "linear"], "mse", "sgd", dtype="float32", bias=False)
        assert fuses(model, batch)
        results += fitted(model, numbers(batch + 2, (5,)), numbers(batch + 2, (2,), 1), batch=batch)
    return results


def tiles_by_turns():
    """More tiles than blocks, which add up what they find of each."""
    rows = 3 * plan.TILES[0].rows - 1
    model = make_model([5, 7, 2], ["gelu", "linear"], "mse", "sgd", dtype="float32")
    with mock.patch.object(plan, "FULL", 2):
        return fitted(model, numbers(rows + 1, (5,)), numbers(rows + 1, (2,), 1), batch=rows)


def as_on_a_gpu(widths, activations, batch):
    """Take steps in a GPU's tiles, in the simulator too: with so many threads, and their places in memory."""

    def act():
        model = make_model(widths, activations, "mse", "sgd", dtype="float32")
        small = {"TILES": plan.GPU_TILES, "SHARED": plan.GPU_SHARED}
        with mock.patch.multiple(plan, **small), mock.patch.object(tiles, "WIDTHS", (64, 128)):
            assert fuses(model, batch)
            rows = batch + batch // 2
            x, y = numbers(rows, widths[:1]), numbers(rows, widths[-1:], 1)
            history = model.fit(x, y, batch_size=batch, verbose=0).history
        return [*history.values(), *model.get_weights()]

    return act


def deep(tile):
    """The first depth at which blocks take a tile, or None: for which there is no room in one."""

    def act():
        width, batch = plan.TILES[0].width, plan.TILES[0].rows
        for count in itertools.count(2):
            model = make_model([width] * count, ["relu"] * (count - 2) + ["linear"], "mse", "sgd", dtype="float32")
            found = plan.plan_of(model.network, model.network.layers, batch)
            if (found and found.tile) == tile:
                break
        return fitted(model, numbers(batch, (width,)), numbers(batch, (width,), 1), batch=batch)

    return act


def positions():
    model = made([k.Dense(4, "relu"), k.Dense(3, "softmax")], (3, 5), "float32")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert fuses(model)
    return fitted(model, numbers(5, (3, 5)), np.arange(15).reshape(5, 3) % 3, sample_weight=np.linspace(0.5, 1.5, 5))


def diagnosed():
    """Look at the values and deltas of all layers, of a step that is not taken."""
    model = make_model([3, 5, 4, 2], ["silu", "relu", "tanh"], "mse", dtype="float32")
    assert fuses(model, 7)
    records = model.diagnose(numbers(7, (3,)), numbers(7, (2,), 1)).layers
    return [getattr(record, name) for record in records for name in ("mean", "std", "zeros", "delta_norm")]


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
    "activations": {name: activation(name) for name in ACTIVATIONS}
    | {f"{name}, fused": fused_activation(name) for name in ACTIVATIONS},
    "losses": {
        kind.__name__ + label: loss(kind, dtype)
        for label, dtype in (("", "float64"), (", fused", "float32"))
        for kind in sorted(set(LOSSES.values()), key=lambda kind: kind.__name__)
    },
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
            learning_by_turns,
            customs,
            saved,
            own_loop,
            not_finite,
            not_taken,
            strange_data,
            wide,
        )
    },
    "fused": {
        "a block's rows": blocks,
        "tiles by turns": tiles_by_turns,
        "a gpu's tiles": as_on_a_gpu([20, 50, 33, 2], ["relu", "gelu", "linear"], 37),
        "a gpu's wide tiles": as_on_a_gpu([7, 100, 3], ["tanh", "linear"], 17),
        "fewer rows": deep(plan.TILES[1]),
        "no room": deep(None),
        "positions": positions,
        "diagnosed": diagnosed,
        "streamed": functools.partial(streamed, "float32"),
        "penalised": functools.partial(penalised, "float32"),
        "pruned": functools.partial(pruned, "float32"),
        "partly frozen": functools.partial(partly_frozen, "float32"),
        "learning by turns": functools.partial(learning_by_turns, "float32"),
        "customs": functools.partial(customs, "float32"),
        "not finite": functools.partial(not_finite, "float32", 1e30),
        "not taken": functools.partial(not_taken, "float32", 1e30),
        "dead unit": dead_unit,
        "strange data": functools.partial(strange_data, "float32"),
        "clipped by norms": optimizer(VARIANTS["adam"], "float32"),
        "accumulated": optimizer(lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2), "float32"),
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
