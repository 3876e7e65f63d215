"""Writes onnx/torch_*.onnx: small networks by torch's two exporters, with what torch computes of them.

    python tests/golden/make_onnx.py

Run it where torch and onnxscript are installed. Beside NAME.onnx there is NAME.npz, with ``x`` and ``y``.
"""

from pathlib import Path

import numpy as np
import torch
from make_torch_modules import exported, randomise
from torch import nn
from torch.nn import functional

FOLDER = Path(__file__).parent / "onnx"


class Residual(nn.Module):
    """Pre-norm blocks, one with another width, behind a flatten that asks for the batch's size."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.inner = nn.Linear(5, 5)
        self.wide = nn.Linear(5, 7)
        self.around = nn.Linear(5, 7, bias=False)

    def forward(self, x):
        h = self.first(x.view(x.size(0), -1))
        h = h + functional.gelu(self.inner(self.norm(h)))
        return torch.softmax(self.around(h) + functional.silu(self.wide(h)), -1)


class Standardised(nn.Module):
    """Means and deviations in the network; float64."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([1e3, 0.5, -2.0]))
        self.register_buffer("deviation", torch.tensor([2.0, 0.1, 5.0]))
        self.dense = nn.Linear(3, 4)

    def forward(self, x):
        return torch.sigmoid(self.dense((x - self.mean) / self.deviation))


def activations():
    """Every activation that torch has and nbdense too."""
    names = ["ReLU", "ReLU6", "Sigmoid", "Tanh", "ELU", "SELU", "SiLU", "Mish", "Softplus", "Hardsigmoid", "Hardswish"]
    layers = [getattr(nn, name)() for name in names] + [nn.GELU(), nn.GELU("tanh"), nn.LeakyReLU(0.2), nn.Hardtanh()]
    chain = [nn.Linear(4, 4)]
    for layer in layers:
        chain += [layer, nn.Linear(4, 4)]
    return nn.Sequential(*chain)


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)), (5,)),
    "norms": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 1)),
        (2, 3),
    ),
    "activations": (activations, (4,)),
    "residual": (Residual, (2, 3)),
    "positions": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 2)), (3, 4)),
    "standardised": (lambda: Standardised().double(), (3,)),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (build, shape) in NETWORKS.items():
        generator = torch.Generator().manual_seed(5)
        model = build()
        randomise(model, generator)
        model.eval()
        dtype = next(model.parameters()).dtype
        x = torch.randn((7, *shape), generator=generator, dtype=dtype) * 2
        if name == "standardised":
            x = x * model.deviation + model.mean
        y = model(x).detach().numpy()
        for exporter in ("script", "dynamo"):
            target = FOLDER / f"torch_{exporter}_{name}.onnx"
            target.write_bytes(exported(model, x, exporter))
            np.savez(target.with_suffix(".npz"), x=x.numpy(), y=y)
            print(target.name, target.stat().st_size)


if __name__ == "__main__":
    main()
