"""The reference's training of the library's models, for tests of whole steps."""

import numpy as np

from nbdense.optimizers import OPTIMIZERS, SGD, Adam
from tests.reference import naive, naive_optimizers
from tests.support.builders import naive_layers, naive_objective

# Every optimizer in the table at its defaults, and its variants; each with naive_optimizers' options.
VARIANTS = [(kind(), {}) for kind in OPTIMIZERS.values()] + [
    (SGD(0.1, momentum=0.9), {"learning_rate": 0.1, "momentum": 0.9}),
    (SGD(0.1, momentum=0.9, nesterov=True), {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    (Adam(0.05, 0.8, 0.95, 1e-3), {"learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}),
]


def naive_fit(model, x, y, batch, orders, options, weights=None):
    """The same training by tests/reference/naive.py, an epoch an order of rows: (layers, an epoch's losses)."""
    layers, states, losses = naive_layers(model), {}, []
    step = naive_optimizers.OPTIMIZERS[type(model.optimizer).name.lower()]
    name, y, loss_options = naive_objective(model.loss, y, model.network.n_out)
    for order in orders:
        total = 0.0
        for first in range(0, len(x), batch):
            rows = order[first : first + batch]
            w = None if weights is None else weights[rows]
            loss, gradients, _ = naive.mlp_loss_and_gradients(
                x[rows], y[rows], layers, name, sample_weight=w, **loss_options
            )
            total += loss * len(rows)
            for i, (layer, pair) in enumerate(zip(layers, gradients, strict=True)):
                stepped = [
                    None if p is None else step(p, g, states.setdefault((i, j), {}), **options)
                    for j, (p, g) in enumerate(zip(layer[:2], pair, strict=True))
                ]
                layers[i] = (*stepped, layer[2])
        losses.append(total / len(x))
    return layers, losses


def assert_weights(model, layers, tolerance=1e-10):
    expected = [part for kernel, bias, _ in layers for part in (kernel, bias) if part is not None]
    for got, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=0, atol=tolerance)
