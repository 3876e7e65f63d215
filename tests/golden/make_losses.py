"""Write losses.json: torch's losses and gradients, which the tests compare ours with.

Run by hand, where torch is installed: ``python tests/golden/make_losses.py``. A case is a last layer's activation, the
numbers z that enter it, targets, row weights, and what torch makes of them: the weighted mean over the rows, and its
derivative by z.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)

ROWS, COLUMNS = 4, 5


def kullback_leibler(p, t):
    return F.kl_div(p.log(), t, reduction="none").sum(1)


def crossentropy(smoothing):
    return lambda z, t: F.cross_entropy(z, t, reduction="none", label_smoothing=smoothing)


def of_probabilities(p, t):
    return F.nll_loss((p / p.sum(1, keepdim=True)).log(), t, reduction="none")


def mean(loss, **options):
    """torch's loss of each element, averaged over the columns."""
    return lambda y, t: loss(y, t, reduction="none", **options).mean(1)


# name, its options, activation, kind of targets, and torch's loss: of the outputs, or (fused) of z
CASES = [
    ("mean_squared_error", {}, "linear", "numbers", mean(F.mse_loss), False),
    ("mean_squared_error", {}, "softmax", "numbers", mean(F.mse_loss), False),
    ("mean_absolute_error", {}, "linear", "numbers", mean(F.l1_loss), False),
    ("mean_absolute_error", {}, "tanh", "numbers", mean(F.l1_loss), False),
    ("huber", {}, "linear", "numbers", mean(F.huber_loss), False),
    ("huber", {"delta": 0.4}, "linear", "numbers", mean(F.huber_loss, delta=0.4), False),
    ("quantile", {}, "linear", "numbers", lambda y, t: mean(F.l1_loss)(y, t) / 2, False),
    ("poisson", {}, "sigmoid", "counts", mean(F.poisson_nll_loss, log_input=False, eps=1e-7), False),
    ("binary_crossentropy", {}, "sigmoid", "labels", mean(F.binary_cross_entropy), False),
    ("binary_crossentropy", {}, "softmax", "labels", mean(F.binary_cross_entropy), False),
    ("binary_crossentropy", {}, "sigmoid", "probabilities", mean(F.binary_cross_entropy_with_logits), True),
    ("binary_crossentropy", {"from_logits": True}, "linear", "labels", mean(F.binary_cross_entropy_with_logits), True),
    ("binary_crossentropy", {"from_logits": True}, "tanh", "labels", mean(F.binary_cross_entropy_with_logits), False),
    ("categorical_crossentropy", {}, "softmax", "probabilities", crossentropy(0.0), True),
    ("categorical_crossentropy", {"label_smoothing": 0.2}, "softmax", "probabilities", crossentropy(0.2), True),
    ("categorical_crossentropy", {"from_logits": True}, "linear", "probabilities", crossentropy(0.0), True),
    ("sparse_categorical_crossentropy", {}, "softmax", "classes", crossentropy(0.0), True),
    ("sparse_categorical_crossentropy", {}, "sigmoid", "classes", of_probabilities, False),
    ("sparse_categorical_crossentropy", {"label_smoothing": 0.1}, "softmax", "classes", crossentropy(0.1), True),
    ("sparse_categorical_crossentropy", {"from_logits": True}, "tanh", "classes", crossentropy(0.0), False),
    ("kl_divergence", {}, "softmax", "probabilities", kullback_leibler, False),
    ("kl_divergence", {}, "sigmoid", "probabilities", kullback_leibler, False),
]
ACTIVATIONS = {
    "linear": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda z: torch.softmax(z, 1),
}


def targets(kind, rng):
    if kind == "numbers":
        return rng.normal(size=(ROWS, COLUMNS))
    if kind == "counts":
        return rng.poisson(2.0, (ROWS, COLUMNS)).astype(float)
    if kind == "labels":
        return rng.integers(0, 2, (ROWS, COLUMNS)).astype(float)
    if kind == "classes":
        return rng.integers(0, COLUMNS, ROWS)
    numbers = rng.uniform(0.05, 1.0, (ROWS, COLUMNS))
    return numbers / numbers.sum(1, keepdims=True)


def main():
    rng = np.random.default_rng(41)
    found = []
    for name, options, activation, kind, loss, fused in CASES:
        z = torch.tensor(rng.normal(0, 2, (ROWS, COLUMNS)), requires_grad=True)
        t, weights = torch.tensor(targets(kind, rng)), torch.tensor(rng.uniform(0, 2, ROWS))
        value = (weights * loss(z if fused else ACTIVATIONS[activation](z), t)).sum() / ROWS
        value.backward()
        case = {"loss": name, "options": options, "activation": activation, "value": value.item()}
        for what, tensor in (("z", z), ("targets", t), ("weights", weights), ("gradient", z.grad)):
            case[what] = tensor.tolist()
        found.append(case)
    lines = ",\n".join(json.dumps(case) for case in found)
    Path(__file__).with_name("losses.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
