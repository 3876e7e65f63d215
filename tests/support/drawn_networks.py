"""Quantized networks that are drawn: their parts, of formats that suit each other, and whole ones of all kinds."""

import numpy as np

from nbdense.activations import ACTIVATIONS
from nbdense.quant.layers.activations import FIXED_OUTPUTS
from nbdense.quant.model.network import (
    LIMITS,
    FloatLayer,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedNetwork,
)
from nbdense.quant.schemes.dynamic import DynamicDense
from nbdense.quant.schemes.weight_only import WeightOnlyDense
from tests.reference import naive

F32 = np.float32
DTYPES = sorted(LIMITS)
FUNCTIONS = sorted(name for name, row in ACTIVATIONS.items() if name != "linear" and not row.rowwise)


class Drawn:
    """Draws the parts of a network from one seed; formats are of one activation dtype."""

    def __init__(self, seed, dtype="int8"):
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def format(self, scale, zero_point=None):
        least, most = LIMITS[self.dtype]
        zero_point = int(self.rng.integers(least + 90, most - 90)) if zero_point is None else zero_point
        return float(F32(scale * self.rng.uniform(0.8, 1.2))), zero_point

    def dense(self, n_in, n_out, given, wanted, activation="linear", name="d", bias=True, pre=None, **more):
        """Requantised values have a deviation of about 30."""
        kernel = self.rng.integers(-127, 128, (n_in, n_out)).astype(np.int8)
        pre = pre or wanted
        scales = self.rng.uniform(0.7, 1.3, n_out) * 30 / (127 * 40 * np.sqrt(n_in)) * pre[0] / given[0]
        if more.get("granularity") == "per_tensor":
            scales[:] = scales[0]
        added = self.rng.integers(-500, 500, n_out) if bias else np.zeros(n_out)
        numbers = *given, *wanted, *pre, activation
        return QuantizedDense(name, kernel, scales.astype(F32), added.astype(np.int32), *numbers, **more)

    def looked_up(self, n_in, n_out, given, activation, **more):
        """A dense layer with a table, and its output's format."""
        pre = self.format(0.05)
        wanted = self.output_of(activation, pre)
        table = self.table(activation, pre, wanted)
        layer = self.dense(
            n_in, n_out, given, wanted, activation, pre=pre, table=table, alpha=alpha_of(activation), **more
        )
        return layer, wanted

    def output_of(self, activation, given):
        if activation in FIXED_OUTPUTS:
            scale, zero_points = FIXED_OUTPUTS[activation]
            return scale, zero_points[self.dtype]
        values = self.values(activation, given)
        low, high = min(values.min(), 0.0), max(values.max(), 0.0)
        scale = float(F32((high - low) / 255))
        return scale, int(np.rint(LIMITS[self.dtype][0] - low / scale))

    def values(self, activation, given):
        least, most = LIMITS[self.dtype]
        z = (np.arange(least, most + 1) - given[1]) * given[0]
        return np.asarray(naive.ACTIVATIONS[activation][0](z))

    def table(self, activation, given, wanted):
        steps = np.rint(self.values(activation, given).astype(F32) / F32(wanted[0])) + wanted[1]
        return np.clip(steps, *LIMITS[self.dtype]).astype(self.dtype)

    def float_dense(self, n_in, n_out, activation="linear", name="f", **more):
        tensors = {"kernel": self.rng.normal(size=(n_in, n_out)) / np.sqrt(n_in), "bias": self.rng.normal(size=n_out)}
        tensors = {key: value.astype(F32) for key, value in tensors.items()}
        return FloatLayer(name, "dense", n_in, tensors, activation, alpha_of(activation), **more)

    def dynamic(self, n_in, n_out, activation="linear", bias=True, **more):
        kernel = self.rng.integers(-127, 128, (n_in, n_out)).astype(np.int8)
        scales = (self.rng.uniform(0.7, 1.3, n_out) / (60 * np.sqrt(n_in))).astype(F32)
        if more.get("granularity") == "per_tensor":
            scales[:] = scales[0]
        added = self.rng.normal(size=n_out).astype(F32) if bias else None
        return DynamicDense("dy", kernel, scales, added, activation, alpha_of(activation), **more)

    def weight_only(self, n_in, n_out, block_size=0, bits=8, activation="linear", bias=True, **more):
        most = {8: 127, 4: 7}[bits]
        kernel = self.rng.integers(-most, most + 1, (n_in, n_out)).astype(np.int8)
        blocks = -(-n_in // (block_size or n_in))
        scales = (self.rng.uniform(0.7, 1.3, (blocks, n_out)) * 2 / (most * np.sqrt(n_in))).astype(F32)
        added = self.rng.normal(size=n_out).astype(F32) if bias else None
        return WeightOnlyDense("w", kernel, scales, added, block_size, bits, activation, alpha_of(activation), **more)


def alpha_of(activation):
    return ACTIVATIONS[activation].alpha if activation in ACTIVATIONS else 0.0


def draw_network(seed):
    """Layers of all kinds in a drawn order, formats and widths drawn."""
    rng = np.random.default_rng(seed)
    dtype = DTYPES[seed % 2]
    d = Drawn(100 + seed, dtype)
    names = sorted(set(FUNCTIONS) - {"relu", "relu6"})
    positions = int(rng.integers(1, 4))
    n, form = int(rng.integers(1, 20)), d.format(0.02)
    shape = (n,) if positions == 1 else (positions, n)
    given, form = form, d.format(0.03)
    layers = [d.dense(n, n, given, form, name="first", positions=positions)]
    for _ in range(int(rng.integers(1, 5))):
        more = {"name": f"l{len(layers)}", "positions": positions}
        what = int(rng.integers(5))
        units = int(rng.integers(1, 20))
        if what == 0:
            layer, form = d.looked_up(n, units, form, str(rng.choice(names)), **more)
            layers.append(layer)
        elif what == 1:
            other = d.format(0.04)
            layers.append(d.dense(n, n, form, other, **more))
            total, index = d.format(0.06), len(layers)
            scales, zero_points = zip(other, form, strict=True)
            layers.append(
                QuantizedAdd("add", n, scales, zero_points, *total, inputs=(index, index - 1), positions=positions)
            )
            form, units = total, n
        elif what == 2 and positions > 1:
            layers.append(QuantizedFlatten("flat", n, *form, positions=positions))
            units, positions = n * positions, 1
        else:
            activation = str(rng.choice(["linear", "relu", "relu6"]))
            other = d.format(0.03, LIMITS[dtype][0] if activation == "relu" else None)
            layers.append(d.dense(n, units, form, other, activation, alpha=alpha_of(activation), **more))
            form = other
        n = units
    return QuantizedNetwork(layers, dtype, final_activation=str(rng.choice(["linear", "softmax"])), input_shape=shape)
