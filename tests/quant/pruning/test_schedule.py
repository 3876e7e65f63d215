"""PruningSchedule: the cubic schedule, masks held by the compiled program, regrowth; and rewinding."""

import numpy as np
import pytest

import nbdense as nb
from nbdense.quant import PruningSchedule, prune, rewind
from nbdense.quant.pruning import sparsity_of
from tests.reference.naive_pruning import cubic_sparsity
from tests.support.builders import make_model

WEIGHTS = 12 * 20 + 20 * 10 + 10 * 3
RNG = np.random.default_rng(8)
X = RNG.normal(size=(160, 12)).astype(np.float32)
Y = RNG.integers(0, 3, 160)


def model_for(optimizer="adam", seed=1):
    activations, loss = ["relu", "tanh", "softmax"], "sparse_categorical_crossentropy"
    return make_model([12, 20, 10, 3], activations, loss, optimizer, dtype="float32", seed=seed)


def kernels(model):
    return [view for name, view in model.parameters.items() if name.endswith("kernel")]


def zeros(model):
    return sum(int((kernel == 0).sum()) for kernel in kernels(model))


class Watch(nb.Callback):
    """Zeros and the state of training behind each batch; put behind the schedule."""

    def __init__(self):
        self.counts = []

    def on_train_batch_end(self, batch, logs=None):
        network = self.model.network
        self.counts.append(zeros(self.model))
        if network.mask is not None:
            assert not network.params[network.mask == 0].any()
            assert not np.signbit(network.params[network.mask == 0]).any()
            assert not self.model.state[1:, network.mask == 0].any()


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        nb.SGD(0.05, momentum=0.9, nesterov=True),
        nb.RMSprop(0.01, momentum=0.5, centered=True),
        nb.AdamW(0.01, weight_decay=0.1, amsgrad=True),
        nb.Lion(0.001),
        nb.Adagrad(0.05),
        nb.Adam(0.01, use_ema=True, ema_overwrite_frequency=7, clipnorm=0.1),
        nb.Adam(0.01, gradient_accumulation_steps=3),
    ],
    ids=lambda optimizer: optimizer if isinstance(optimizer, str) else type(optimizer).__name__,
)
def test_the_sparsity_follows_the_schedule_and_everything_is_held(optimizer):
    """10 steps an epoch; updates at 4, 7, 10, ..., 25 and at the end, 26."""
    model, watch = model_for(optimizer), Watch()
    schedule = PruningSchedule(0.9, 0.3, begin_step=4, end_step=26, frequency=3)
    history = model.fit(X, Y, 16, epochs=4, verbose=0, callbacks=[schedule, watch]).history
    due = [*range(4, 26, 3), 26]
    expected = []
    for step in range(1, 41):
        last = max((t for t in due if t <= step), default=None)
        expected.append(0 if last is None else round(cubic_sparsity(last, 4, 26, 0.3, 0.9) * WEIGHTS))
    assert watch.counts == expected
    assert history["sparsity"] == [count / WEIGHTS for count in expected[9::10]]
    assert zeros(model) == round(0.9 * WEIGHTS)
    assert not model.network.params[model.network.mask == 0].any()


def test_where_it_begins_and_ends_by_itself():
    model, watch = model_for(), Watch()
    model.fit(X, Y, 16, epochs=4, verbose=0, callbacks=[PruningSchedule(0.5, 0.2, frequency=1000), watch])
    assert watch.counts == [round(0.2 * WEIGHTS)] * 29 + [round(0.5 * WEIGHTS)] * 11
    free = model_for()
    with pytest.raises(ValueError, match="how many steps an epoch has; give end_step"):
        free.fit(((X[:16], Y[:16]) for _ in range(4)), verbose=0, callbacks=[PruningSchedule(0.5)])
    free.fit(((X[:16], Y[:16]) for _ in range(4)), verbose=0, callbacks=[PruningSchedule(0.5, end_step=2)])
    assert zeros(free) == WEIGHTS // 2


def test_the_same_bits_on_two_threads_in_one_run_or_two_and_however_steps_are_cut(set_threads, tmp_path):
    results = []
    for threads, cut, stop in ((1, False, False), (2, False, False), (1, True, False), (2, False, True)):
        set_threads(threads)
        model = model_for(nb.Adam(0.01))
        options = {"criterion": "movement", "calibration": (X, Y), "regrow": 0.3}
        callbacks = [PruningSchedule(0.8, begin_step=2, end_step=30, frequency=5, **options)]
        callbacks += [nb.LambdaCallback(on_train_batch_end=lambda batch, logs: None)] if cut else []
        if stop:
            model.fit(X, Y, 16, epochs=2, verbose=0, callbacks=callbacks)
            model.save(tmp_path / "m", compressed=True)
            model = nb.load_model(tmp_path / "m")
        model.fit(X, Y, 16, epochs=4, initial_epoch=2 if stop else 0, verbose=0, callbacks=callbacks)
        results.append((model.network.params.tobytes(), model.network.mask.tobytes(), model.state[1:].tobytes()))
        assert zeros(model) >= round(0.8 * WEIGHTS)
    assert len(set(results)) == 1


def test_what_was_pruned_before_stays_away():
    model = prune(model_for(), 0.5)
    held = [kernel == 0 for kernel in kernels(model)]
    model.fit(X, Y, 16, epochs=4, verbose=0, callbacks=[PruningSchedule(0.9, frequency=3)])
    for kernel, zero in zip(kernels(model), held, strict=True):
        assert not kernel[zero].any()
    assert zeros(model) == round(0.9 * WEIGHTS)


@pytest.mark.parametrize(
    "options",
    [
        {"structure": "block", "block_size": (2, 5), "scope": "layer"},
        {"structure": "2:4", "exempt": "dense_2"},
        {"exempt": ["dense_2"]},
        {"criterion": "second_order", "calibration": X},
    ],
    ids=["blocks", "n of m", "exempt", "second order"],
)
def test_options_are_those_of_prune(options):
    """It ends with a mask that prune makes too."""
    model = model_for()
    model.fit(X, Y, 16, epochs=3, verbose=0, callbacks=[PruningSchedule(0.5, end_step=30, frequency=4, **options)])
    np.testing.assert_array_equal(model.network.mask, prune(model, 0.5, **options).network.mask)


def test_regrowth_takes_the_places_with_the_largest_gradients():
    model = model_for("sgd")
    model.fit(X, Y, 16, epochs=2, verbose=0)
    model = prune(model, 0.6)
    before = model.network.mask.copy(), [kernel.copy() for kernel in kernels(model)]
    free = prune(model, 0.0)  # the same weights, and nothing is held
    free.network.mask = None
    outputs = free.forward(X)
    outputs[np.arange(len(Y)), Y] -= 1
    probe = nb.Sequential([nb.Input((12,)), nb.Dense(20, "relu"), nb.Dense(10, "tanh"), nb.Dense(3)])
    probe.set_weights(free.get_weights())
    probe.forward(X)
    probe.backward(outputs)  # of the cross-entropy by the logits
    gradients = np.concatenate([np.abs(g).ravel() for n, g in probe.gradients.items() if n.endswith("kernel")])
    schedule = PruningSchedule(0.6, 0.6, end_step=1000, frequency=1000, regrow=0.5, calibration=(X, Y))
    model.fit(X, Y, 160, epochs=1, verbose=0, callbacks=[schedule, First()])
    flat = np.concatenate([kernel.ravel() for kernel in before[1]])
    kept = WEIGHTS - round(0.6 * WEIGHTS)
    stays = np.argsort(-np.abs(flat), kind="stable")[: kept - round(0.5 * kept)]
    ranked = gradients.copy()
    ranked[stays] = -1
    grown = np.argsort(-ranked, kind="stable")[: round(0.5 * kept)]
    mask = np.concatenate(
        [view.ravel() for n, view in model.network.tensors(First.mask).items() if n.endswith("kernel")]
    )
    np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(np.concatenate([stays, grown])))


class First(nb.Callback):
    """Keeps the mask that the first step is taken with."""

    mask = None

    def on_epoch_begin(self, epoch, logs=None):
        First.mask = self.model.network.mask.copy()


def test_regrown_weights_learn():
    model = model_for(nb.Adam(0.01))
    schedule = PruningSchedule(0.8, 0.8, end_step=25, frequency=5, regrow=0.4, calibration=(X, Y))
    masks = []
    watch = nb.LambdaCallback(on_train_batch_end=lambda batch, logs: masks.append(model.network.mask.copy()))
    model.fit(X, Y, 16, epochs=4, verbose=0, callbacks=[schedule, watch])
    grown = (masks[0] == 0) & (masks[-1] == 1)
    assert grown.any() and (model.network.params[grown] != 0).all()
    assert all(int((mask == 0).sum()) == round(0.8 * WEIGHTS) for mask in masks)
    assert zeros(model) == round(0.8 * WEIGHTS)


def test_rewinding_to_earlier_weights():
    model = model_for()
    first = model.get_weights()
    model.fit(X, Y, 16, epochs=3, verbose=0)
    pruned = prune(model, 0.7)
    ticket = rewind(pruned, first)
    masks = pruned.network.tensors(pruned.network.mask).values()
    for weights, mask, start in zip(ticket.get_weights(), masks, first, strict=True):
        np.testing.assert_array_equal(weights, np.where(mask == 0, 0, start))
    np.testing.assert_array_equal(rewind(pruned, model).network.params, pruned.network.params)
    assert ticket.optimizer.batches == 0
    ticket.fit(X, Y, 16, epochs=2, verbose=0)
    assert zeros(ticket) == zeros(pruned) == round(0.7 * WEIGHTS)
    with pytest.raises(ValueError, match="rewind: expected a model that prune or PruningSchedule"):
        rewind(model, first)
    with pytest.raises(ValueError, match="rewind: expected 6 arrays of the shapes of get_weights"):
        rewind(pruned, first[:-1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1.0,), r"final_sparsity must lie in \[0, 1\), got 1.0"),
        ((0.5, -0.1), r"initial_sparsity must lie in \[0, 1\), got -0.1"),
        ((0.5, 0.0, -1), "begin_step must be a whole number of at least 0, got -1"),
        ((0.5, 0.0, 5, 4), "end_step must be a whole number of at least 5, got 4"),
        ((0.5, 0.0, 0, None, 0), "frequency must be a whole number of at least 1, got 0"),
    ],
)
def test_numbers_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=f"^PruningSchedule: {words}"):
        PruningSchedule(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"structure": "neuron"}, "cannot be done while it trains; call prune between two fits"),
        ({"regrow": 0.1}, r"regrow takes calibration=\(x, y\)"),
        ({"regrow": 0.1, "calibration": (X, Y), "structure": "2:4"}, "not n:m"),
        ({"scope": "all"}, "scope must be 'global' or 'layer'"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(ValueError, match=f"^PruningSchedule: .*{words}"):
        PruningSchedule(0.5, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"structure": "5:10"}, "Dense layer 'dense' has 12 inputs, which 10 does not divide"),
        ({"exempt": "dens"}, "no Dense layer named 'dens'"),
        ({"criterion": "movement"}, "this criterion needs calibration"),
    ],
)
def test_what_does_not_suit_the_model_is_said_before_it_learns(options, words):
    model = model_for()
    before = model.network.params.copy()
    with pytest.raises(ValueError, match=f"^PruningSchedule: .*{words}"):
        model.fit(X, Y, verbose=0, callbacks=[PruningSchedule(0.5, **options)])
    np.testing.assert_array_equal(model.network.params, before)
    assert sparsity_of(model.network) == 0
