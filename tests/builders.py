"""Models, data and objectives that the tests of the engine and of its front ends share."""

import numpy as np

import naive
from nbdense.activations import ACTIVATIONS
from nbdense.layers import Dense, Input
from nbdense.losses import LOSSES
from nbdense.models import Sequential
from nbdense.training import Workspace


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
    """The model's layers as tests/naive.py takes them."""
    return [
        (row.kernel.copy(), None if row.bias is None else row.bias.copy(), row.activation.name)
        for row in model.network.rows()
    ]


def draw_targets(rng, loss, rows, n_out):
    """Class numbers for a sparse loss, else numbers in (0, 1), which every loss takes."""
    return rng.integers(0, n_out, rows) if loss.sparse else rng.uniform(0.05, 0.95, (rows, n_out))


def naive_objective(loss, y, n_out):
    """The loss's name, targets and options as tests/naive.py takes them."""
    options = {k: v for k, v in loss.get_config().items() if v}
    if loss.sparse:
        return "categorical_crossentropy", naive.one_hot(y, n_out), options
    return loss.name, y, options


# What a loss is tried behind: it sees an activation's values and nothing else. gelu keeps its pre-activation.
HEADS = ("linear", "relu", "sigmoid", "tanh", "softmax", "gelu")


def _outputs_are_probabilities(activation):
    z = np.random.default_rng(0).normal(0, 5, (50, 4))
    outputs = naive.activate(activation, z)
    return bool((outputs > 0).all() and (outputs < 1).all())


def objectives():
    """Every loss in the table, with each of its options, after every head that suits it."""
    for kind in sorted(set(LOSSES.values()), key=lambda kind: kind.__name__):
        fields = kind.__dataclass_fields__
        logits = [False, True] if "from_logits" in fields else [None]
        smoothings = [0.0, 0.2] if "label_smoothing" in fields else [None]
        for from_logits in logits:
            for smoothing in smoothings:
                options = {"from_logits": from_logits, "label_smoothing": smoothing}
                loss = kind(**{k: v for k, v in options.items() if v is not None})
                for activation in HEADS:
                    if from_logits and loss.name in naive.FUSED.get(activation, ()):
                        continue  # probabilities are no logits
                    if from_logits is False and not _outputs_are_probabilities(activation):
                        continue
                    yield loss, activation


OBJECTIVES = list(objectives())
# Hidden layers and objectives tried together: every one of each, but not each with each.
PAIRS = [(hidden, objective) for objective in OBJECTIVES for hidden in ("relu", "silu")]
PAIRS += [(hidden, OBJECTIVES[(5 * i + k) % len(OBJECTIVES)]) for i, hidden in enumerate(ACTIVATIONS) for k in range(4)]


def objective_name(objective):
    loss, activation = objective
    options = "-".join(f"{k}={v}" for k, v in loss.get_config().items() if v)
    return "-".join(part for part in (activation, loss.name, options) if part)


def workspace_and_data(model, x, y, weights=None, batch=None):
    """What the epoch loop hands to the compiled program."""
    objective, _ = model._objective()
    return Workspace(model.network, objective, batch or len(x), model.state), model._data(x, y, weights)


def padding(network):
    """True for the elements of the parameter vector that belong to no tensor."""
    inside = np.zeros(network.params.size, bool)
    for view in network.tensors(inside).values():
        view[...] = True
    return ~inside
