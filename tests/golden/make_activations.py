"""Writes activations.npz: torch's values and derivatives of activations, in float64. Run it where torch is installed.

    python tests/golden/make_activations.py

``z`` are the points, ``NAME`` the values there, ``NAME/derivative`` the derivatives by automatic differentiation;
softmax and log_softmax are over the rows of ``softmax/z``, and their derivatives are those of the sum of outputs times
``softmax/weights``. ``NAME PARAMETERS`` are values with other parameters than the table's.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

FUNCTIONS = {
    "linear": lambda z: z * 1.0,
    "relu": torch.relu,
    "relu6": functional.relu6,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.2),
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda z: functional.relu6(z + 3.0) / 6.0,  # hardsigmoid's derivative is float32's 1/6
    "hard_swish": functional.hardswish,
    "tanh": torch.tanh,
    "softplus": lambda z: functional.softplus(z, threshold=100.0),  # by default it is z from 20 on
    "mish": functional.mish,
    "softsign": functional.softsign,
    "exponential": torch.exp,
    "celu": functional.celu,
    "log_sigmoid": functional.logsigmoid,
    "hard_tanh": functional.hardtanh,
    "hard_shrink": functional.hardshrink,
    "soft_shrink": functional.softshrink,
    "tanh_shrink": functional.tanhshrink,
    "squareplus": lambda z: (z + torch.sqrt(z * z + 4.0)) / 2.0,  # Keras's formulas, by torch's differentiation
    "softplus_beta": functional.softplus,
    "sparse_plus": lambda z: torch.where(z <= -1, 0.0, torch.where(z < 1, (z + 1.0) ** 2 / 4.0, z)),
    "sparse_sigmoid": lambda z: torch.clamp((z + 1.0) / 2.0, 0.0, 1.0),
    "threshold": lambda z: functional.threshold(z, 0.0, 0.0),
    "thresholded_relu": lambda z: functional.threshold(z, 1.0, 0.0),
}
# With parameters other than the table's: the name, what `with_alpha` takes, and torch's function.
WITH_PARAMETERS = [
    ("relu6", 2.5, lambda z: functional.hardtanh(z, 0.0, 2.5)),
    ("leaky_relu", 0.01, lambda z: functional.leaky_relu(z, 0.01)),
    ("elu", 0.3, lambda z: functional.elu(z, 0.3)),
    ("celu", 0.5, lambda z: functional.celu(z, 0.5)),
    ("celu", 3.0, lambda z: functional.celu(z, 3.0)),
    ("hard_tanh", (-2.5, 0.3), lambda z: functional.hardtanh(z, -2.5, 0.3)),
    ("hard_tanh", (0.2, 4.0), lambda z: functional.hardtanh(z, 0.2, 4.0)),
    ("hard_shrink", 1.3, lambda z: functional.hardshrink(z, 1.3)),
    ("hard_shrink", 0.0, lambda z: functional.hardshrink(z, 0.0)),
    ("soft_shrink", 1.3, lambda z: functional.softshrink(z, 1.3)),
    ("squareplus", 0.25, lambda z: (z + torch.sqrt(z * z + 0.25)) / 2.0),
    ("softplus_beta", (2.0, 20.0), lambda z: functional.softplus(z, 2.0)),
    ("softplus_beta", (0.3, 5.0), lambda z: functional.softplus(z, 0.3, 5.0)),
    ("threshold", (0.5, -1.5), lambda z: functional.threshold(z, 0.5, -1.5)),
    ("threshold", (-2.0, 7.0), lambda z: functional.threshold(z, -2.0, 7.0)),
    ("thresholded_relu", (2.0, 0.1, 8.0), lambda z: torch.where(z > 2, torch.clamp(z, max=8.0), 0.1 * (z - 2))),
    ("thresholded_relu", (0.0, -0.2, 3.0), lambda z: torch.where(z > 0, torch.clamp(z, max=3.0), -0.2 * z)),
]
# No kink is among them.
SIZES = [1e-30, 1e-8, 1e-3, 0.06, 0.35, 0.7, 1.1, 1.7, 2.4, 2.9, 3.1, 4.3, 5.2, 5.9, 6.1, 7.7, 9.5, 13.0, 17.0, 19.0]
SIZES += [21.0, 26.0, 37.0, 39.0, 60.0, 87.0, 105.0, 300.0, 720.0, 1e4, 1e18, 1e30]


def main() -> None:
    points = np.array([-size for size in reversed(SIZES)] + SIZES)
    arrays = {"z": points}
    for name, function in FUNCTIONS.items():
        z = torch.tensor(points, requires_grad=True)
        values = function(z)
        values.sum().backward()
        arrays[name], arrays[f"{name}/derivative"] = values.detach().numpy(), z.grad.numpy()
    rng = np.random.default_rng(4)
    rows = rng.normal(0, [[1.0], [5.0], [50.0], [500.0]], (4, 7))
    weights = rng.normal(size=rows.shape)
    z = torch.tensor(rows, requires_grad=True)
    values = torch.softmax(z, -1)
    (values * torch.tensor(weights)).sum().backward()
    arrays |= {"softmax/z": rows, "softmax/weights": weights}
    arrays |= {"softmax": values.detach().numpy(), "softmax/derivative": z.grad.numpy()}
    z = torch.tensor(rows, requires_grad=True)
    values = functional.log_softmax(z, -1)
    (values * torch.tensor(weights)).sum().backward()
    arrays |= {"log_softmax": values.detach().numpy(), "log_softmax/derivative": z.grad.numpy()}
    for name, alpha, function in WITH_PARAMETERS:
        z = torch.tensor(points, requires_grad=True)
        values = function(z)
        values.sum().backward()
        key = f"{name} {alpha}"
        arrays[key], arrays[f"{key}/derivative"] = values.detach().numpy(), z.grad.numpy()
    np.savez(Path(__file__).with_name("activations.npz"), **arrays)


if __name__ == "__main__":
    main()
