"""Models, data and objectives that the tests of the engine and of its front ends share."""

import itertools

import numpy as np

from nbdense import backends
from nbdense.activations import ACTIVATIONS
from nbdense.layers import Dense, Input
from nbdense.losses import (
    LOSSES,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    KLDivergence,
    MeanSquaredError,
    Poisson,
)
from nbdense.models import Sequential
from tests.reference import naive


def make_model(widths, activations, loss="mse", optimizer="sgd", *, metrics=None, dtype="float64", seed=1, bias=True):
    """A compiled model of dense layers, its biases drawn too; with ``bias`` False its odd layers have none."""
    model = Sequential([Input((widths[0],))], dtype=dtype)
    for i, (units, name) in enumerate(zip(widths[1:], activations, strict=True)):
        model.add(Dense(units, name, use_bias=bias or i % 2 == 0))
    model.seed = seed
    model.compile(optimizer, loss, metrics)
    rng = np.random.default_rng(seed)
    for name, view in model.network.tensors().items():
        if name.endswith("/bias"):
            view[...] = rng.normal(0, 0.3, view.shape)
    return model


def naive_layers(model):
    """The model's layers as tests/reference/naive.py takes them."""
    return [
        (row.kernel.copy(), None if row.bias is None else row.bias.copy(), row.activation.name)
        for row in model.network.rows()
    ]


def draw_targets(rng, loss, rows, n_out):
    """Class numbers for a sparse loss, class probabilities where such are taken, else numbers in (0, 1)."""
    if loss.sparse:
        return rng.integers(0, n_out, rows)
    numbers = rng.uniform(0.05, 0.95, (rows, n_out))
    return numbers / numbers.sum(1, keepdims=True) if isinstance(loss, OF_CLASSES) else numbers


def naive_objective(loss, y, n_out):
    """The loss's name, targets and options as tests/reference/naive.py takes them."""
    options = {k: v for k, v in options_of(loss).items() if v}
    if loss.sparse:
        return loss.kind.removeprefix("sparse_"), naive.one_hot(y, n_out), options
    return loss.kind, y, options


OF_CLASSES = CategoricalCrossentropy, KLDivergence
OPTIONS = {
    "from_logits": [False, True],
    "label_smoothing": [0.0, 0.2],
    "delta": [1.0, 0.3],
    "quantile": [0.5, 0.9],
    "apply_class_balancing": [False, True],
    "alpha": [0.25, 0.4],
    "beta": [0.5, 0.7],
    "gamma": [2.0, 1.5],
    "q": [0.5, 0.8],
}
LAST_AXIS = {"dice": {"axis": -1}, "tversky": {"axis": -1}}  # what a model trains with, where it is no default


def options_of(loss):
    """A loss's options that change its formula."""
    return {name: value for name, value in loss.arguments.items() if name in OPTIONS}


def variants(kind):
    """A loss's class with each of its options, and the first two with each other."""
    first, second, *rest = [*options_of(make_loss(kind)), None, None]
    names = [name for name in (first, second) if name]
    for values in itertools.product(*(OPTIONS[name] for name in names)):
        yield make_loss(kind, **dict(zip(names, values, strict=True)))
    for name in filter(None, rest):
        yield make_loss(kind, **{name: OPTIONS[name][1]})


def make_loss(kind, **options):
    """A loss that a model can train with."""
    return kind(**LAST_AXIS.get(kind.kind, {}), **options)


def suits(loss, activation):
    """Tell whether the loss can take an activation's outputs, and says nothing to them.

    Activations that are 0 around 0 are tried in hidden layers: outputs would all be 0.
    """
    if not naive.activate(activation, np.linspace(-0.5, 0.5, 8)[None]).any():
        return False
    advice, fused = loss.advice_after(activation), loss.form(activation)[1]
    outputs = naive.activate(activation, np.random.default_rng(0).normal(0, 5, (50, 4)))
    takes_logarithms = isinstance(loss, (*OF_CLASSES, BinaryCrossentropy, CategoricalGeneralizedCrossEntropy, Poisson))
    if advice or fused or not takes_logarithms or getattr(loss, "from_logits", False):
        return not advice
    return bool((outputs > 0).all() and (isinstance(loss, Poisson) or (outputs < 1).all()))


def objectives():
    """Every loss in the table with each of its options, after some activations that suit it.

    Those it fuses with, the first that suits it, and one more: another each time, so that all have their turn. What is
    left out is the chain rule again.
    """
    turn = itertools.count()
    for kind in sorted(set(LOSSES.values()), key=lambda kind: kind.__name__):
        for loss in variants(kind):
            suited = [activation for activation in ACTIVATIONS if suits(loss, activation)]
            chosen = [suited[0], *(activation for activation in suited if loss.form(activation)[1])]
            rest = [activation for activation in suited if activation not in chosen]
            if rest:
                chosen.append(rest[next(turn) % len(rest)])
            for activation in dict.fromkeys(suited if kind is MeanSquaredError else chosen):
                yield loss, activation


OBJECTIVES = list(objectives())
# Hidden layers and objectives tried together: every one of each, but not each with each.
PAIRS = [(("relu", "silu")[i % 2], objective) for i, objective in enumerate(OBJECTIVES)]
PAIRS += [(hidden, OBJECTIVES[(5 * i + k) % len(OBJECTIVES)]) for i, hidden in enumerate(ACTIVATIONS) for k in range(4)]


def objective_name(objective):
    loss, activation = objective
    options = "-".join(f"{k}={v}" for k, v in options_of(loss).items() if v)
    return "-".join(part for part in (activation, loss.kind, options) if part)


def workspace_and_data(model, x, y, weights=None, batch=None):
    """Return what the epoch loop hands to the compiled program."""
    state = model.train_state
    objective, _ = state.objective()
    workspace = backends.current().workspace(state.network, objective, batch or len(x), state.vectors)
    return workspace, state.data(x, y, weights)


def padding(network):
    """True for the elements of the parameter vector that belong to no tensor."""
    inside = np.zeros(network.params.size, bool)
    for view in network.tensors(inside).values():
        view[...] = True
    return ~inside
