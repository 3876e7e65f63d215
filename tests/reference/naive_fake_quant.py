"""Fake quantization's straight-through surrogate: what its gradients are the slopes of (see naive.py).

Rounding r(t) is taken as t + c with the c that it has at one place, held while weights, inputs and ranges move around
it. What is clamped there stays clamped. So the surrogate is smooth, equals the rounded network at that place, and
central differences of it are the gradients that Jacob et al. (2018), Jain et al. (2019) and Esser et al. (2020) train
by.
"""

from typing import Any

import numpy as np

Array = np.ndarray
Described = list[tuple[str, dict[str, Any]]]  # kind and configuration of each layer
LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
ACTIVATIONS = {"linear": lambda z: z, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}


def _range(config: dict[str, Any], parameters: dict[str, Array]) -> tuple[float, float]:
    low, high = config["low"], config["high"]
    if config["learned"]:
        factors = parameters[f"{config['name']}/range_factor"]
        low, high = low * factors[0], high * factors[1]
    return low, high


def _dense(config: dict[str, Any], parameters: dict[str, Array], x: Array, here: dict[str, Any]) -> Array:
    kernel, bias = (parameters[f"{config['name']}/{what}"] + here[what] for what in ("kernel", "bias"))
    return ACTIVATIONS[config["activation"]](x @ kernel + bias)


def rounding_of(layers: Described, parameters: dict[str, Array], x: Array) -> list[dict[str, Any]]:
    """Return what rounding adds at every place, layer by layer, and which places are inside their range."""
    held: list[dict[str, Any]] = []
    scale = 0.0
    for kind, config in layers:
        if kind == "fake_quantized_dense":
            limit = {8: 127, 4: 7}[config["kernel_bits"]]
            name = config["name"]
            kernel, bias, scales = (parameters[f"{name}/{what}"] for what in ("kernel", "bias", "kernel_scale"))
            steps = np.float64(np.float32(scale) * scales.astype(np.float32))  # of the accumulator
            change = np.clip(np.rint(kernel / scales), -limit, limit) * scales - kernel
            held.append({"kernel": change, "bias": np.rint(bias / steps) * steps - bias})
            x = _dense(config, parameters, x, held[-1])
        elif kind == "fake_quantize":
            low, high = _range(config, parameters)
            least, most = LIMITS[config["dtype"]]
            scale = float(np.float32((high - low) / (most - least)))
            zero_point = np.rint(least - low / scale)
            steps = np.rint(x / scale) + zero_point
            inside = (steps >= least) & (steps <= most)
            held.append(
                {
                    "inside": inside,
                    "steps": np.rint(x / scale) - x / scale,
                    "zero_point": zero_point - (least - low / scale),
                }
            )
            x = scale * (np.clip(steps, least, most) - zero_point)
        else:
            held.append({})
            x = ACTIVATIONS[config["activation"]](x)
    return held


def surrogate(layers: Described, parameters: dict[str, Array], x: Array, held: list[dict[str, Any]]) -> Array:
    """The network's outputs with the rounding held."""
    for (kind, config), here in zip(layers, held, strict=True):
        if kind == "fake_quantized_dense":
            x = _dense(config, parameters, x, here)
        elif kind == "fake_quantize":
            low, high = _range(config, parameters)
            least, most = LIMITS[config["dtype"]]
            scale = (high - low) / (most - least)
            zero_point = least - low / scale + here["zero_point"]
            clamped = np.where(x > 0, most, least)
            x = scale * np.where(here["inside"], x / scale + here["steps"], clamped - zero_point)
        else:
            x = ACTIVATIONS[config["activation"]](x)
    return x
