"""Modules of torch.nn, by the names of their classes, and functions of torch and torch.nn.functional, as steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from nbdense.export.frameworks.chain import Chain, ForeignLayer, array_of, readers_of
from nbdense.export.graph.steps import DropoutStep, FunctionStep, Step, affine, clip, function


def _leaky(slope: float) -> FunctionStep:
    return function("leaky_relu", slope) if slope >= 0 else function("thresholded_relu", (0.0, slope, math.inf))


def _softplus(module: Any) -> FunctionStep:
    beta, threshold = float(module.beta), float(module.threshold)
    return function("softplus") if (beta, threshold) == (1.0, 20.0) else function("softplus_beta", (beta, threshold))


_NAMES = {
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "SiLU": "silu",
    "Mish": "mish",
    "SELU": "selu",
    "Softsign": "softsign",
    "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_swish",
    "Tanhshrink": "tanh_shrink",
    "LogSigmoid": "log_sigmoid",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
}
_OVER_COLUMNS = ("Softmax", "LogSoftmax", "Softmin")
# Modules that a Sequential of nbdense's has nothing for in evaluation.
_NOTHING = ("Identity", "AlphaDropout", "FeatureAlphaDropout")

# What a module of a class does, as steps; of its attributes alone.
STEPS: dict[str, Callable[[Any], list[Step]]] = {
    **{kind: lambda module, name=name: [function(name)] for kind, name in _NAMES.items()},  # type: ignore[misc]
    **{kind: lambda module: [] for kind in _NOTHING},
    "ReLU6": lambda module: [function("relu6", 6.0)],
    "ELU": lambda module: [function("elu", float(module.alpha))],
    "CELU": lambda module: [function("celu", float(module.alpha))],
    "GELU": lambda module: [function("gelu_tanh" if module.approximate == "tanh" else "gelu")],
    "LeakyReLU": lambda module: [_leaky(float(module.negative_slope))],
    "RReLU": lambda module: [_leaky((float(module.lower) + float(module.upper)) / 2)],
    "PReLU": lambda module: [_leaky(float(array_of(module.weight).item()))],
    "Hardtanh": lambda module: clip(float(module.min_val), float(module.max_val)),
    "Hardshrink": lambda module: [function("hard_shrink", float(module.lambd))],
    "Softshrink": lambda module: [function("soft_shrink", float(module.lambd))],
    "Softplus": lambda module: [_softplus(module)],
    "Threshold": lambda module: [function("threshold", (float(module.threshold), float(module.value)))],
    "Softmin": lambda module: [affine(scale=-1.0), function("softmax")],
    "Dropout": lambda module: [DropoutStep(float(module.p))] if module.p else [],
}
# Functions by name: the module of the same meaning, and their arguments behind the data with their defaults.
FUNCTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind.lower(): (kind, {}) for kind in ("ReLU", "Sigmoid", "Tanh", "SiLU", "Mish", "SELU", "Softsign", "ReLU6")},
    **{kind.lower(): (kind, {}) for kind in ("Hardsigmoid", "Hardswish", "Tanhshrink", "LogSigmoid")},
    **{kind.lower(): (kind, {"alpha": 1.0}) for kind in ("ELU", "CELU")},
    **{name: (kind, {"dim": None}) for name, kind in (("softmax", "Softmax"), ("log_softmax", "LogSoftmax"))},
    "softmin": ("Softmin", {"dim": None}),
    "gelu": ("GELU", {"approximate": "none"}),
    "leaky_relu": ("LeakyReLU", {"negative_slope": 0.01}),
    "hardtanh": ("Hardtanh", {"min_val": -1.0, "max_val": 1.0}),
    "hardshrink": ("Hardshrink", {"lambd": 0.5}),
    "softshrink": ("Softshrink", {"lambd": 0.5}),
    "softplus": ("Softplus", {"beta": 1.0, "threshold": 20.0}),
    "dropout": ("Dropout", {"p": 0.5}),
    "flatten": ("Flatten", {"start_dim": 0, "end_dim": -1}),
    "contiguous": ("Identity", {}),
}
REFUSED = {
    "GLU": "it halves the columns",
    "Dropout1d": "it takes the rows of data for channels; use Dropout",
    **dict.fromkeys(("GroupNorm", "InstanceNorm1d"), "it normalises groups of columns, or channels"),
    "Bilinear": "it multiplies two inputs",
    "Embedding": "it takes whole numbers; encode them as columns",
}
_READERS = readers_of("torch")
KNOWN = {"Linear", "Flatten", *STEPS, *_READERS}


def append(chain: Chain, kind: str, module: Any, name: str) -> None:
    """Append what a module of torch.nn does.

    Parameters
    ----------
    chain : Chain
        What is written.
    kind : str
        The name of its class, one of KNOWN.
    module : torch.nn.Module, or an object of its attributes
        The module.
    name : str
        Its name in the model.

    Raises
    ------
    ValueError
        If its options have no layer here; it is named.
    """
    place = f"{kind} {name!r}"
    if kind == "Linear":
        bias = None if module.bias is None else array_of(module.bias)
        chain.dense(array_of(module.weight).T, bias, f"{name}.weight", place)
    elif kind == "Flatten":
        if (module.start_dim, module.end_dim) != (1, -1):
            dims = f"{module.start_dim} to {module.end_dim}"
            raise chain.fail(place, f"it joins axes {dims}; Flatten here joins all but the rows', 1 to -1")
        chain.flatten(place)
    elif kind in _READERS:
        form, read = _READERS[kind]
        chain.row(form, *read(ForeignLayer(module, chain, place)), f"{name}.weight", place)
    else:
        if kind in _OVER_COLUMNS and module.dim is not None:
            chain.check_axis(module.dim, place)
        if kind == "PReLU" and array_of(module.weight).size > 1:
            raise chain.fail(place, "a slope for each column is no activation of one number; give it one slope")
        chain.add(*STEPS[kind](module))


def append_function(chain: Chain, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Append what a function of torch's does.

    Parameters
    ----------
    chain : Chain
        What is written.
    name : str
        The function's, one of FUNCTIONS.
    arguments, options : tuple, dict
        What it is called with behind the data.
    """
    kind, defaults = FUNCTIONS[name]
    given = dict(zip(defaults, arguments, strict=False)) | options
    module = SimpleNamespace(**{**defaults, **{key: value for key, value in given.items() if key in defaults}})
    append(chain, kind, module, name)
