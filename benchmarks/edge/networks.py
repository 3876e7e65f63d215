"""The networks that are compared: of no training, since neither size nor instructions depend on what weights are."""

from __future__ import annotations

import functools

import numpy as np

from nbdense import quantize
from nbdense.layers import Dense, Input
from nbdense.models import Sequential
from nbdense.utils import set_random_seed

NETWORKS = {
    "anomaly detector": (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640),
    "LeNet-300-100": (784, 300, 100, 10),
    "20-64-64-2": (20, 64, 64, 2),
}


def float_model(widths: tuple[int, ...]) -> Sequential:
    """Return a relu network with seeded weights."""
    set_random_seed(0)
    dense = functools.partial(Dense, bias_initializer="random_uniform")  # the files of rivals need one
    *hidden, last = widths[1:]
    model = Sequential([Input((widths[0],)), *(dense(width, "relu") for width in hidden), dense(last)])
    model.build((None, widths[0]))
    return model


def calibration(widths: tuple[int, ...], rows: int = 256) -> np.ndarray:
    """Return standard normal rows."""
    return np.random.default_rng(0).standard_normal((rows, widths[0]), np.float32)


def quantized(widths: tuple[int, ...], rounding: str = "onnx"):
    """Return the int8 model: per channel, calibrated on `calibration`."""
    return quantize(float_model(widths), calibration(widths), rounding=rounding)
