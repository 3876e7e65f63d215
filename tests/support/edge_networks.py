"""Networks for C: of widths, activations, roundings and bits as tests want them, without training."""

import itertools

import numpy as np

from nbdense.quant.layers.activations import FIXED_OUTPUTS
from nbdense.quant.model.network import (
    LIMITS,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedNetwork,
    QuantizedSoftmax,
)
from tests.support.drawn_networks import FUNCTIONS, Drawn, alpha_of

F32 = np.float32


def chain(widths, seed=0, dtype="int8", rounding="onnx", activation="relu", bits=8, softmax=False, **more):
    """Dense layers of these widths; the last one linear."""
    d = Drawn(seed, dtype)
    form, layers = d.format(0.02), []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        name = activation if i < len(widths) - 2 else "linear"
        other = d.format(0.03, LIMITS[dtype][0] if name == "relu" else None)
        layer = d.dense(n_in, n_out, form, other, name, name=f"dense_{i}", alpha=alpha_of(name), **more)
        layers.append(of_bits(layer, bits))
        form = other
    if softmax:
        layers.append(softmax_of(widths[-1], form, dtype))
    return QuantizedNetwork(layers, dtype, rounding)


def of_bits(layer, bits):
    """The layer with weights of 4 bits, and scales that leave its outputs as large."""
    if bits == 8:
        return layer
    kernel = (layer.kernel >> 4).astype(np.int8)
    return layer.replaced(kernel=kernel, kernel_scales=(layer.kernel_scales * F32(16)).astype(F32), bits=4)


def left_out(rng, shape, zeros, width=1):
    """A mask of the weights that become zero, a share of all: in blocks of one input and ``width`` outputs."""
    return np.repeat(rng.random((shape[0], -(-shape[1] // width))) < zeros, width, axis=1)[:, : shape[1]]


def thinned(network, zeros, width=1, seed=0):
    """The network with a share of its kernels' weights zero."""
    rng = np.random.default_rng(seed)

    def thin(layer):
        if not hasattr(layer, "kernel"):
            return layer
        gone = left_out(rng, layer.kernel.shape, zeros, width)
        return layer.replaced(kernel=np.where(gone, np.int8(0), layer.kernel))

    return QuantizedNetwork([*map(thin, network.layers)], network.activation_dtype, network.rounding)


def softmax_of(n, form, dtype):
    exponentials = np.rint(2.0**23 * np.exp(-np.arange(256) * form[0] * 4)).astype(np.int32)
    return QuantizedSoftmax("softmax", n, *form, LIMITS[dtype][0], exponentials)


def tables(seed, dtype, rounding, activation):
    """A dense layer with a table, an activation of its own, and a residual sum of both."""
    d = Drawn(seed, dtype)
    n_in, n = int(d.rng.integers(1, 60)), int(d.rng.integers(1, 40))
    given = d.format(0.02)
    first, form = d.looked_up(n_in, n, given, activation, name="table")
    wanted = d.output_of("tanh", form)
    own = QuantizedActivation("own", n, *form, *wanted, d.table("tanh", form, wanted), "tanh")
    total = d.format(1.5 * max(form[0], wanted[0]))
    scales, zero_points = zip(form, wanted, strict=True)
    add = QuantizedAdd("add", n, scales, zero_points, *total, "relu", inputs=(1, 2))
    last = d.dense(n, 3, total, d.format(0.03), name="last")
    return QuantizedNetwork([first, own, add, last], dtype, rounding)


def anomaly_detector(rounding="onnx"):
    """MLPerf Tiny's: 640-128x4-8-128x4-640, 264,192 multiply-adds."""
    return chain([640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640], rounding=rounding)


def integers_for(network, rows, seed=0):
    """Rows of the input's integers, and the real numbers that they stand for."""
    rng = np.random.default_rng(seed)
    first = network.layers[0]
    least, most = LIMITS[network.activation_dtype]
    q = rng.integers(least, most + 1, (rows, network.n_in))
    zero_point = first.input_formats[0][1]
    shrunk = np.rint((q - zero_point) * rng.uniform(0.05, 1, (rows, 1))).astype(np.int64) + zero_point
    q = np.clip(shrunk, least, most).astype(network.activation_dtype)
    x = (q.astype(np.int32) - zero_point).astype(F32) * F32(first.input_formats[0][0])
    return q, x.reshape(rows, *network.input_shape)


__all__ = ["FIXED_OUTPUTS", "FUNCTIONS", "anomaly_detector", "chain", "integers_for", "left_out", "tables", "thinned"]
