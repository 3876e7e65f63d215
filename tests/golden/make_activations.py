"""Writes activations.npz: torch's values and derivatives of activations, in float64. Run it where torch is installed.

    python tests/golden/make_activations.py

``z`` are the points, ``NAME`` the values there, ``NAME/derivative`` the derivatives by automatic differentiation;
softmax is over the rows of ``softmax/z``, and its derivative is that of the sum of outputs times ``softmax/weights``.
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
}
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
    np.savez(Path(__file__).with_name("activations.npz"), **arrays)


if __name__ == "__main__":
    main()
