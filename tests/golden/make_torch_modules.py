"""Writes torch_modules.npz: a dense network around each module of torch.nn, by torch's two exporters.

    python tests/golden/make_torch_modules.py

Run it where torch and onnxscript are installed. ``MODULE EXPORTER`` is the ONNX file as bytes, ``MODULE EXPORTER/y``
what torch computes of ``x``. What from_onnx is to refuse is under ``refused MODULE EXPORTER``.
"""

import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

TAKEN = {
    "AlphaDropout": lambda: nn.AlphaDropout(0.3),
    "BatchNorm1d": lambda: nn.BatchNorm1d(6),
    "CELU": lambda: nn.CELU(0.5),
    "Dropout": lambda: nn.Dropout(0.3),
    "ELU": lambda: nn.ELU(0.7),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.3),
    "Flatten": nn.Flatten,
    "GELU": nn.GELU,
    "GELU of tanh": lambda: nn.GELU("tanh"),
    "Hardshrink": lambda: nn.Hardshrink(0.4),
    "Hardsigmoid": nn.Hardsigmoid,
    "Hardswish": nn.Hardswish,
    "Hardtanh": lambda: nn.Hardtanh(-0.5, 2.0),
    "Identity": nn.Identity,
    "LayerNorm": lambda: nn.LayerNorm(6),
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "LeakyReLU of negative slope": lambda: nn.LeakyReLU(-0.1),
    "Linear": lambda: nn.Linear(6, 6, bias=False),
    "LogSigmoid": nn.LogSigmoid,
    "LogSoftmax": lambda: nn.LogSoftmax(-1),
    "Mish": nn.Mish,
    "PReLU": nn.PReLU,
    "RReLU": nn.RReLU,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "SELU": nn.SELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
    "Softmax": lambda: nn.Softmax(-1),
    "Softmin": lambda: nn.Softmin(-1),
    "Softplus": nn.Softplus,
    "Softplus of beta": lambda: nn.Softplus(2.0, 5.0),
    "Softshrink": lambda: nn.Softshrink(0.4),
    "Softsign": nn.Softsign,
    "Tanh": nn.Tanh,
    "Tanhshrink": nn.Tanhshrink,
    "Threshold": lambda: nn.Threshold(0.3, -1.5),
    "Unflatten": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten()),
}
REFUSED = {
    "Dropout1d": nn.Dropout1d,
    "GLU": lambda: nn.Sequential(nn.GLU(), nn.Linear(3, 6)),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(6),
    "PReLU of several slopes": lambda: nn.PReLU(6),
}
# What torch itself does not export.
NOT_EXPORTED = {("RReLU", "dynamo"), ("Threshold", "script"), ("InstanceNorm1d", "script")}
# torch's script exporter leaves the threshold out: above it, values differ by less than its exponential.
OTHERWISE = {("Softplus of beta", "script")}


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw a module's parameters and running statistics; variances are positive."""
    for parameter in [*model.parameters(), *(b for name, b in model.named_buffers() if "running" in name)]:
        with torch.no_grad():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 1.2 - 0.5)
    for name, buffer in model.named_buffers():
        if "var" in name:
            buffer.abs_().add_(0.1)


def exported(model: nn.Module, x: torch.Tensor, exporter: str) -> bytes:
    """Return an ONNX file, without what an exporter says of the machine and of its source code."""
    options = {"dynamo": exporter == "dynamo"}
    if options["dynamo"]:
        options |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False, "verbose": False}
    else:
        options |= {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "m.onnx"
        torch.onnx.export(model, (x,), str(path), input_names=["x"], output_names=["y"], **options)
        proto = onnx.load(path)
    for message in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        message.doc_string = ""
        del message.metadata_props[:]
    del proto.graph.value_info[:]
    return proto.SerializeToString()


def main() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn((40, 4), generator=generator) * 2
    arrays = {"x": x.numpy()}
    for prefix, modules in (("", TAKEN), ("refused ", REFUSED)):
        for name, make in modules.items():
            model = nn.Sequential(nn.Linear(4, 6), make(), nn.Linear(6, 3))
            randomise(model, generator)
            model.eval()
            for exporter in ("script", "dynamo"):
                if (name, exporter) in NOT_EXPORTED | OTHERWISE:
                    continue
                key = f"{prefix}{name} {exporter}"
                arrays[key] = np.frombuffer(exported(model, x, exporter), np.uint8)
                arrays[f"{key}/y"] = model(x).detach().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    Path(__file__).with_name("torch_modules.npz").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
