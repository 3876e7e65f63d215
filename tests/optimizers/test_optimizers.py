"""The optimizers: torch's and Keras's steps, naive ones, clipping, decay, averages, and what names them."""

import copy
import itertools

import numba
import numpy as np
import pytest

from nbdense._compile import thread_pool
from nbdense.callbacks import Callback
from nbdense.engine.elementwise.optimizer import prepare_nadam, rate_of_step, update
from nbdense.engine.on_demand import address_of
from nbdense.engine.tables import RUN
from nbdense.optimizers import OPTIMIZERS, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Ftrl, Lion, Nadam, RMSprop, get
from tests.reference import naive_optimizers
from tests.support.builders import make_model, padding
from tests.support.compiled import compiled
from tests.support.source_tree import ROOT

GOLDEN = dict(np.load(ROOT / "tests" / "golden" / "optimizers.npz"))
N_IN, N_OUT = 3, 5  # of the golden values' kernel
SPLIT = N_IN * N_OUT

TORCH = {
    "SGD": SGD(0.1),
    "SGD_momentum": SGD(0.1, momentum=0.9),
    "SGD_nesterov": SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": Adam(0.01, epsilon=1e-16),
    "Adam_amsgrad": Adam(0.01, epsilon=1e-16, amsgrad=True),
    "AdamW": AdamW(0.01, weight_decay=0.1, epsilon=1e-16),
}
KERAS = {
    "SGD": SGD(),
    "SGD_nesterov": SGD(momentum=0.9, nesterov=True),
    "RMSprop": RMSprop(),
    "RMSprop_momentum": RMSprop(momentum=0.8, rho=0.7),
    "RMSprop_centered": RMSprop(centered=True, epsilon=1e-3),
    "RMSprop_both": RMSprop(centered=True, momentum=0.5, epsilon=1e-2),
    "Adagrad": Adagrad(0.1),
    "Adagrad_initial": Adagrad(initial_accumulator_value=0.5, epsilon=1e-3),
    "Adam": Adam(),
    "Adam_amsgrad": Adam(amsgrad=True, beta_2=0.9),
    "AdamW": AdamW(),
    "Nadam": Nadam(),
    "Nadam_betas": Nadam(0.1, beta_1=0.7, beta_2=0.95),
    "Lion": Lion(),
    "Adadelta": Adadelta(1.0),
    "Adadelta_rho": Adadelta(rho=0.5, epsilon=1e-3),
    "Adamax": Adamax(),
    "Adamax_betas": Adamax(0.1, beta_1=0.7, beta_2=0.95),
    "Ftrl": Ftrl(0.1),
    "Ftrl_all": Ftrl(0.1, -0.3, 0.5, 0.2, 0.1, 0.05, 0.4),
    "accumulated": SGD(0.1, momentum=0.9, gradient_accumulation_steps=3),
    "accumulated_decay": Adam(0.1, global_clipnorm=0.5, weight_decay=0.2, gradient_accumulation_steps=2),
    "clipnorm": SGD(0.1, clipnorm=0.5),
    "global_clipnorm": SGD(0.1, global_clipnorm=0.5),
    "clipvalue": SGD(0.1, clipvalue=0.3),
    "clipped_decay": RMSprop(0.1, global_clipnorm=0.5, weight_decay=0.2),
    "excluded": SGD(0.1, weight_decay=0.2, weight_decay_excludes=["bias"]),
    "ema": SGD(0.1, use_ema=True, ema_momentum=0.8),
    "ema_overwritten": Adam(0.1, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4),
}
# Our names and options, those of naive_optimizers being the same.
VARIANTS = [
    ("RMSprop", {"rho": 0.8, "momentum": 0.7, "epsilon": 1e-4}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.3, "learning_rate": 0.01}),
    ("Adagrad", {"learning_rate": 0.5, "initial_accumulator_value": 0.0}),
    ("Adam", {"amsgrad": True, "beta_2": 0.5, "learning_rate": 0.05}),
    ("AdamW", {"weight_decay": 0.3, "learning_rate": 0.05}),
    ("Nadam", {"beta_1": 0.0}),
    ("Nadam", {"beta_1": 0.95, "beta_2": 0.8, "epsilon": 1e-3}),
    ("Lion", {"beta_1": 0.5, "beta_2": 0.7}),
    ("Adadelta", {"rho": 0.7, "learning_rate": 0.5}),
    ("Adamax", {"beta_1": 0.0, "epsilon": 1e-3}),
    ("Ftrl", {"l1_regularization_strength": 0.3, "beta": 1.0}),
    ("Ftrl", {"learning_rate_power": 0.0, "initial_accumulator_value": 0.0, "learning_rate": 0.1}),
]


def fresh(optimizer):
    """One like those of the tables, which themselves take no step."""
    assert optimizer.iterations == 0
    return copy.copy(optimizer)


def decayed(model):
    """The factors that exclude_from_weight_decay asks for, in the network's table."""
    network = model.network
    network.segments["decay"] = model.optimizer.decay_factors(p.name for p in network.parameters)


def linear_model(start, optimizer, dtype):
    """A dense layer of the golden values' shape."""
    model = make_model([N_IN, N_OUT], ["linear"], optimizer=fresh(optimizer), dtype=dtype)
    model.set_weights([start[:SPLIT].reshape(N_IN, N_OUT), start[SPLIT:]])
    decayed(model)
    return model


def golden_steps(optimizer, dtype):
    """Behind each of ten steps with the golden gradients, the parameters; and the model."""
    model = linear_model(GOLDEN["start"], optimizer, dtype)
    # Each unit row and its negative bring half a row of the kernel's gradient, and nothing of the bias's, to the last
    # bit; a row of zeros brings that.
    x = np.concatenate([np.repeat(np.eye(N_IN), 2, 0) * np.array([[1.0], [-1.0]] * N_IN), np.zeros((1, N_IN))])
    taken = []
    for gradient in GOLDEN["gradients"]:
        kernel, bias = gradient[:SPLIT].reshape(N_IN, N_OUT), gradient[SPLIT:]
        model.forward(x, training=True)
        halves = np.repeat(kernel, 2, 0) * np.array([[0.5], [-0.5]] * N_IN)
        model.backward(np.concatenate([halves, [bias]]))
        model.apply_gradients()
        taken.append(np.concatenate([part.ravel() for part in model.get_weights()]))
    return np.array(taken), model


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("variant", TORCH)
def test_ten_steps_equal_torch(variant, dtype, tolerance):
    taken, _ = golden_steps(TORCH[variant], dtype)
    np.testing.assert_allclose(taken, GOLDEN[f"torch/{variant}"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("variant", KERAS)
def test_ten_steps_equal_keras(variant, dtype, tolerance):
    taken, model = golden_steps(KERAS[variant], dtype)
    np.testing.assert_allclose(taken, GOLDEN[f"keras/{variant}"], rtol=tolerance, atol=tolerance)
    if model.optimizer.use_ema:
        averages = np.concatenate([view.ravel() for view in model.network.tensors(model.state[-1]).values()])
        np.testing.assert_allclose(averages, GOLDEN[f"average/{variant}"], rtol=tolerance, atol=tolerance)


def test_every_golden_value_is_compared():
    assert {f"torch/{name}" for name in TORCH} | {f"keras/{name}" for name in KERAS} == {
        name for name in GOLDEN if name.startswith(("torch", "keras"))
    }
    assert {type(optimizer) for optimizer in KERAS.values()} == set(OPTIMIZERS.values())


# -- against naive steps ----------------------------------------------------------------------------------------------


def naive_clip(optimizer, gradients):
    if optimizer.clipvalue is not None:
        return [naive_optimizers.clip_by_value(g, optimizer.clipvalue) for g in gradients]
    if optimizer.clipnorm is not None:
        return [naive_optimizers.clip_by_norm(g, optimizer.clipnorm) for g in gradients]
    if optimizer.global_clipnorm is not None:
        return naive_optimizers.clip_by_global_norm(gradients, optimizer.global_clipnorm)
    return gradients


def fitted(optimizer, dtype="float64", penalties=False, masked=False, steps=10):
    """A model behind one fit of so many steps, and what naive steps with the gradients of its own make of it."""
    rng = np.random.default_rng(3)
    model = make_model([6, 17, 3], ["tanh", "linear"], optimizer=fresh(optimizer), dtype=dtype)
    network = model.network
    decayed(model)
    if penalties:
        network.segments["l1"], network.segments["l2"] = 0.02, 0.05
    masks = [np.ones(view.shape) for view in network.tensors().values()]
    if masked:
        network.mask = np.zeros_like(network.params)
        for mask, view in zip(masks, network.tensors(network.mask).values(), strict=True):
            mask[...] = rng.random(mask.shape) < 0.6
            view[...] = mask
        network.params *= network.mask
    x, y = rng.normal(size=(8 * steps, 6)), 3 * rng.normal(size=(8 * steps, 3))
    probe = make_model([6, 17, 3], ["tanh", "linear"])
    step = naive_optimizers.OPTIMIZERS[type(optimizer).name.lower()]
    options = {field: getattr(optimizer, field) for field in optimizer.fields}
    options = {k: v for k, v in options.items() if not isinstance(optimizer, AdamW) or k != "weight_decay"}
    weights, states, average = model.get_weights(), [{} for _ in masks], [{} for _ in masks]
    keep = model.optimizer.decay_factors(network.tensors())
    for k in range(steps):
        probe.set_weights(weights)
        rows = slice(8 * k, 8 * k + 8)
        out = probe.forward(x[rows])
        probe.backward(2 * (out - y[rows]) / out.size)
        gradients = [g.copy() for g in probe.gradients.values()]
        if penalties:
            gradients = [g + 0.02 * np.sign(w) + 0.1 * w for g, w in zip(gradients, weights, strict=True)]
        gradients = naive_clip(optimizer, [g * mask for g, mask in zip(gradients, masks, strict=True)])
        rate = float(optimizer.rates(steps)[k])
        decay = optimizer.weight_decay or 0.0
        weights = [naive_optimizers.decay_weights(w, rate, decay * f) for w, f in zip(weights, keep, strict=True)]
        extra = {"weight_decay": 0.0} if isinstance(optimizer, AdamW) else {}
        weights = [
            step(w, g, s, learning_rate=rate, **options, **extra)
            for w, g, s in zip(weights, gradients, states, strict=True)
        ]
        if optimizer.use_ema:
            means = [
                naive_optimizers.exponential_moving_average(w, s, optimizer.ema_momentum)
                for w, s in zip(weights, average, strict=True)
            ]
            every = optimizer.ema_overwrite_frequency
            if k == steps - 1 or (every and (k + 1) % every == 0):
                weights = [mean.copy() for mean in means]
    model.fit(x, y, 8, shuffle=False, verbose=0)
    return model, weights


def assert_fitted(optimizer, **options):
    model, expected = fitted(optimizer, **options)
    assert model.optimizer.iterations == 10
    for got, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-10)
    outside = padding(model.network)
    assert not model.network.params[outside].any() and not model.state[:, outside].any()
    return model


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_ten_steps_equal_naive_ones(name, options):
    assert_fitted(get({"name": name, "config": options}))


CLIPS = [{"clipnorm": 0.3}, {"global_clipnorm": 0.3}, {"clipvalue": 0.05}, {"global_clipnorm": 1e6}]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_clipping_with_masks_penalties_decay_and_averages(kind, clip):
    common = {"weight_decay": 0.3, "use_ema": True, "ema_momentum": 0.9, "weight_decay_excludes": ["bias$"]}
    model = assert_fitted(kind(0.05, **common, **clip), penalties=True, masked=True)
    assert not model.network.params[model.network.mask == 0].any()
    loose, _ = fitted(kind(0.05, **common), penalties=True, masked=True)
    assert (clip.get("global_clipnorm") == 1e6) == np.allclose(
        model.get_weights()[0], loose.get_weights()[0], rtol=0, atol=1e-12
    )


def squares(model, x, y, rows):
    """Copies of a model's gradients of the mean squared error over some rows, by name."""
    out = model.forward(x[rows], training=True)
    model.backward(2 * (out - y[rows]) / out.size)
    return {name: view.copy() for name, view in model.gradients.items()}


@pytest.mark.parametrize("clip", [*CLIPS, {}], ids=str)
def test_gradients_that_were_written_to_are_clipped(clip):
    """apply_gradients takes what is there: clipped, masked, and without another share of the penalties."""
    rng = np.random.default_rng(11)
    model = make_model([6, 17, 3], ["tanh", "linear"], optimizer=SGD(0.1, weight_decay=0.3, **clip))
    network = model.network
    network.segments["l1"], network.segments["l2"] = 0.02, 0.05
    network.mask = np.zeros_like(network.params)
    masks = [rng.random(view.shape) < 0.6 for view in network.tensors().values()]
    for mask, view in zip(masks, network.tensors(network.mask).values(), strict=True):
        view[...] = mask
    network.params *= network.mask
    for _ in range(3):
        weights = model.get_weights()
        found = squares(model, rng.normal(size=(9, 6)), rng.normal(size=(9, 3)), slice(None))
        assert all(not gradient[~mask].any() for gradient, mask in zip(found.values(), masks, strict=True))
        noisy = [gradient + rng.normal(size=gradient.shape) for gradient in found.values()]
        for view, gradient in zip(model.gradients.values(), noisy, strict=True):
            view[...] = gradient
        model.apply_gradients()
        clipped = naive_clip(model.optimizer, [gradient * mask for gradient, mask in zip(noisy, masks, strict=True)])
        for got, w, gradient in zip(model.get_weights(), weights, clipped, strict=True):
            np.testing.assert_allclose(got, w * (1 - 0.1 * 0.3) - 0.1 * gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("clip", [*CLIPS, {}], ids=str)
def test_accumulated_gradients_are_those_of_the_whole_batch(clip):
    """In parts of several sizes, with a look at other rows before the step."""
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(16, 6)), 3 * rng.normal(size=(16, 3))
    whole, parts = (make_model([6, 17, 3], ["tanh", "linear"], optimizer=Adam(0.05, **clip)) for _ in range(2))
    for model in (whole, parts):
        model.network.segments["l2"] = 0.05
    for _ in range(3):
        whole.train_on_batch(x, y)
        found = [(len(x[rows]) / 16, squares(parts, x, y, rows)) for rows in (slice(5), slice(5, 16))]
        parts.forward(x[:2])
        for name, view in parts.gradients.items():
            view[...] = sum(share * gradients[name] for share, gradients in found)
        parts.apply_gradients()
        np.testing.assert_allclose(parts.network.params, whole.network.params, rtol=0, atol=1e-10)


def test_clipping_may_begin_between_two_batches():
    rng = np.random.default_rng(13)
    x, y = rng.normal(size=(32, 6)), 3 * rng.normal(size=(32, 3))
    fit, by_batch = (make_model([6, 17, 3], ["tanh", "linear"], optimizer=SGD(0.1)) for _ in range(2))

    class Clipping(Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.clipnorm = 0.05 if batch >= 2 else None

    fit.fit(x, y, 8, shuffle=False, verbose=0, callbacks=[Clipping()])
    for k in range(4):
        by_batch.optimizer.clipnorm = 0.05 if k >= 2 else None
        by_batch.train_on_batch(x[8 * k : 8 * k + 8], y[8 * k : 8 * k + 8])
    np.testing.assert_array_equal(fit.network.params, by_batch.network.params)


@pytest.mark.parametrize("every", [None, 1, 3, 5])
def test_averages_of_weights(every):
    assert_fitted(Adam(0.05, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=every))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_averages_take_the_weights_place_in_every_loop(every):
    """fit, train_on_batch and apply_gradients; the golden values have the last of them too."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(48, 4)), rng.normal(size=(48, 2))
    batches = [slice(8 * k, 8 * k + 8) for k in range(6)]
    fit, by_batch, own = (
        make_model(
            [4, 5, 2],
            ["tanh", "linear"],
            optimizer=Adam(0.05, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=every),
        )
        for _ in range(3)
    )
    fit.fit(x, y, 8, shuffle=False, verbose=0)  # its end takes the averages too, which here are there already
    for rows in batches:
        by_batch.train_on_batch(x[rows], y[rows])
        out = own.forward(x[rows], training=True)
        own.backward(2 * (out - y[rows]) / out.size)
        own.apply_gradients()
        steps = own.optimizer.iterations  # behind the first, the average is the weights
        assert (own.network.params == own.state[-1]).all() == (steps == 1 or steps % every == 0)
    np.testing.assert_array_equal(by_batch.network.params, fit.network.params)
    np.testing.assert_allclose(own.network.params, fit.network.params, rtol=0, atol=1e-12)


def test_decay_too_small_for_a_factor_of_float32():
    """1 - 3e-8 rounds to 1: weights are decayed by what is taken off them, not by a factor."""
    model = make_model([3, 2], ["linear"], optimizer=SGD(1e-4, weight_decay=3e-4), dtype="float32")
    model.set_weights([np.full((3, 2), 1.9, np.float32), np.zeros(2)])
    model.forward(np.zeros((1, 3)), training=True)
    model.backward(np.zeros((1, 2)))
    model.apply_gradients()
    expected = np.float32(1.9) - np.float32(1.9) * np.float32(3e-8)
    np.testing.assert_array_equal(model.get_weights()[0], np.full((3, 2), expected))


EVERYTHING = [
    kind(0.01, use_ema=True, ema_overwrite_frequency=3, **clip)
    for kind, clip in zip(
        OPTIMIZERS.values(),
        itertools.cycle([{"clipnorm": 0.1}, {"global_clipnorm": 0.1}, {"clipvalue": 0.01}, {}]),
        strict=False,
    )
] + [
    Nadam(0.01, gradient_accumulation_steps=5),
    RMSprop(centered=True, momentum=0.9),
    Adam(amsgrad=True, global_clipnorm=0.1),
    SGD(momentum=0.9, nesterov=True),
]


@pytest.mark.parametrize("optimizer", EVERYTHING, ids=lambda optimizer: optimizer.name)
def test_threads_change_no_bit(optimizer, monkeypatch):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 100)), rng.normal(size=(60, 3))
    found = []
    for threads in (1, min(2, int(numba.config.NUMBA_NUM_THREADS))):
        monkeypatch.setattr(thread_pool, "worthwhile", lambda flops, threads=threads: threads)
        model = make_model([100, 70, 3], ["tanh", "linear"], optimizer=fresh(optimizer), dtype="float32")
        assert model.network.slabs.size > 6  # of two kernels and two biases: sums for clipping are of several threads
        model.network.segments["l2"] = 0.01
        model.fit(x, y, 16, epochs=2, verbose=0)
        found.append((model.network.params.copy(), model.state.copy()))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@compiled
def take_step(runs, params, state, low, high, rate, step, hyper):
    run = runs[0]
    adjusted = rate_of_step(run, rate, step, hyper)
    update(run["optimizer"], run["optimizer_call"], params, state, low, high, low, adjusted, step, hyper)


def run_update(optimizer, params, state, low, high, rate, step):
    runs = np.zeros(1, RUN)
    for name, value in optimizer.run_fields(params.dtype).items():
        runs[name] = value
    runs["prepare"] = address_of(prepare_nadam, params.dtype)
    take_step(runs, params, state, low, high, rate, step, optimizer.hyper())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", EVERYTHING, ids=lambda optimizer: optimizer.name)
def test_cutting_a_range_changes_no_bit(optimizer, dtype):
    rng = np.random.default_rng(5)
    found = []
    start, gradients = rng.normal(size=160).astype(dtype), rng.normal(size=(3, 160)).astype(dtype)
    for cuts in ([0, 160], [0, 16, 32, 112, 160]):
        params, state = start.copy(), np.zeros((1 + optimizer.slots, 160), dtype)
        for step, gradient in enumerate(gradients, 1):
            state[0] = gradient
            for low, high in itertools.pairwise(cuts):
                run_update(optimizer, params, state, low, high, 0.1, step)
        found.append((params, state))
    for whole, cut in zip(*found, strict=True):
        np.testing.assert_array_equal(whole, cut)
    assert (found[0][0] != start).all()


def test_nadam_after_many_steps():
    """The product of the momenta without a product: as the naive one multiplies it up, to a step where it is 0."""
    optimizer, state = Nadam(0.1, beta_1=0.9999), {}
    params, w = np.zeros(16), np.zeros(16)
    rows = np.zeros((3, 16))
    for step in range(1, 3001):
        gradient = np.cos(step + np.arange(16.0))
        w = naive_optimizers.nadam(w, gradient, state, learning_rate=0.1, beta_1=0.9999)
        rows[0] = gradient
        run_update(optimizer, params, rows, 0, 16, 0.1, step)
    np.testing.assert_allclose(params, w, rtol=0, atol=1e-9)


def test_centered_rmsprop_takes_a_constant_gradient():
    """Its mean square less its mean's square is below zero by rounding, by more than epsilon."""
    optimizer = RMSprop(centered=True)
    params, rows = np.zeros(16, np.float32), np.zeros((3, 16), np.float32)
    for step in range(1, 300):
        rows[0] = np.linspace(90, 150, 16)
        run_update(optimizer, params, rows, 0, 16, 1e-3, step)
    assert np.isfinite(params).all() and (params < 0).all()


@pytest.mark.parametrize("epsilon", [1e-7, 1e-16, 1.2e-38])
def test_adam_is_exact_for_numbers_of_every_size(epsilon):
    """Also where the CPU's estimates do not hold: each vector has a kind of number among ordinary ones, or is of it."""
    sizes = [0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-6, 1.0, 1e14, 1e29, 1e31, 3e38, np.inf, np.nan]
    rng, optimizer = np.random.default_rng(3), Adam(epsilon=epsilon)
    for size, alone in itertools.product(sizes, (False, True)):
        mean, square = rng.normal(size=16), np.full(16, 0.01)
        square[4 if alone else slice(None)] = size
        params, state = np.zeros(16, np.float32), np.array([np.zeros(16), mean, square], np.float32)
        with np.errstate(all="ignore"):
            run_update(optimizer, params, state, 0, 16, 0.1, 10**6)  # by when the bias correction is 1
            expected = -np.float32(0.1) * (state[1] / (np.sqrt(state[2], dtype=np.float64) + np.float32(epsilon)))
            expected = expected.astype(np.float32)
        np.testing.assert_array_equal(np.isfinite(params), np.isfinite(expected))
        np.testing.assert_allclose(params, expected, rtol=4e-7, atol=1e-44)


def test_gradients_of_zero_move_nothing():
    for kind in set(OPTIMIZERS.values()) - {Ftrl}:  # whose weights follow from its slots alone
        optimizer = kind(0.1, **({"epsilon": 1e-37} if "epsilon" in kind.fields else {}))
        params, rows = np.ones(16, np.float32), np.zeros((1 + optimizer.slots, 16), np.float32)
        if kind is Adagrad:
            optimizer.initial_accumulator_value = 0.0
        run_update(optimizer, params, rows, 0, 16, 0.1, 1)
        np.testing.assert_array_equal(params, np.ones(16))
