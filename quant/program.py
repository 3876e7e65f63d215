"""A quantized network laid out for the integer program, and its calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _threads
from nbdense.network import aligned_zeros, leading_dimension
from nbdense.quant import kernels, rounding
from nbdense.quant.microkernel import GROUP, pack
from nbdense.quant.network import LIMITS, QuantizedDense, QuantizedNetwork

_NO_INTEGERS, _NO_VALUES = np.empty((0, 0), np.uint8), np.empty((0, 0), np.float32)


class Program:
    """The tables and packed vectors of one network.

    Parameters
    ----------
    network : QuantizedNetwork
        What to run; not changed.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        self._dtype = np.dtype(network.activation_dtype)
        self._minimum = LIMITS[network.activation_dtype][0]
        self._layers = np.zeros(len(network.layers), kernels.LAYER)
        self._form = np.zeros(1, kernels.FORM)
        first, last = network.layers[0], network.layers[-1]
        for key, value in {
            "rounding": rounding.CODES[network.rounding],
            "softmax": network.final_activation == "softmax",
            "input_zero_point": first.input_zero_point - self._minimum,
            "output_zero_point": last.output_zero_point - self._minimum,
            "input_scale": first.input_scale,
            "output_scale": last.output_scale,
        }.items():
            self._form[0][key] = value
        self._n_out = network.n_out
        self._lay_out(network)
        self._work_a_row = sum(layer.n_in * layer.n_out for layer in network.layers)

    def _lay_out(self, network: QuantizedNetwork) -> None:
        weights = channels = 0
        buffer, width = 0, leading_dimension(network.n_in)
        for row, layer in zip(self._layers, network.layers, strict=True):
            low, high = layer.clamp(network.activation_dtype, network.rounding)
            ld_out = leading_dimension(layer.n_out)
            for key, value in {
                "n_in": layer.n_in,
                "n_out": layer.n_out,
                "input": buffer,
                "ld_in": leading_dimension(layer.n_in),
                "output": width,
                "ld_out": ld_out,
                "kernel": weights,
                "channels": channels,
                "table": -1,
                "zero_point": layer.pre_zero_point - self._minimum,
                "low": low - self._minimum,
                "high": high - self._minimum,
            }.items():
                row[key] = value
            buffer, width = width, width + ld_out
            weights += -(-layer.n_in // GROUP) * ld_out * GROUP
            channels += ld_out
        self._form[0]["width"] = width
        packed = aligned_zeros(weights, np.int8)
        columns = [aligned_zeros(channels, kind) for kind in (np.int32, np.float32, np.int32, np.int32)]
        tables: list[npt.NDArray[np.uint8]] = []
        for row, layer in zip(self._layers, network.layers, strict=True):
            start, at = int(row["kernel"]), int(row["channels"])
            ld_out = int(row["ld_out"])
            groups = -(-layer.n_in // GROUP)
            pack(layer.kernel, packed[start : start + groups * ld_out * GROUP].reshape(groups, ld_out, GROUP))
            self._fill_columns(layer, network.rounding, *(column[at : at + layer.n_out] for column in columns))
            if layer.table is not None:
                row["table"] = 256 * len(tables)
                tables.append((layer.table.astype(np.int16) - self._minimum).astype(np.uint8))
        self._vectors = (packed, *columns, np.concatenate(tables) if tables else np.zeros(0, np.uint8))

    def _fill_columns(
        self,
        layer: QuantizedDense,
        mode: str,
        bias: npt.NDArray[Any],
        multipliers: npt.NDArray[Any],
        fixed: npt.NDArray[Any],
        shifts: npt.NDArray[Any],
    ) -> None:
        zero_point = layer.input_zero_point - self._minimum
        # May wrap, as the sums that are added to it will.
        bias[:] = (layer.bias - zero_point * layer.kernel.sum(axis=0, dtype=np.int64)).astype(np.int32)
        multipliers[:] = layer.bias_scales() / np.float32(layer.pre_scale)
        if mode == "tflite":
            fixed[:], shifts[:] = np.array(layer.fixed_point_multipliers()).T

    def integers(self, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The last layer's outputs, before a softmax: (rows, n_out) of the activation dtype.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
            Rows; a NaN is taken as zero.
        """
        out = np.empty((x.shape[0], self._n_out), np.uint8)
        self._run(x, out, _NO_VALUES)
        if self._dtype == np.uint8:
            return out
        out ^= np.uint8(128)  # counted from -128, modulo 256
        return out.view(np.int8)

    def values(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The outputs as float32, (rows, n_out): dequantized, through the softmax where there is one.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
            Rows; one that holds a NaN gives a row of NaN.
        """
        out = np.empty((x.shape[0], self._n_out), np.float32)
        self._run(x, _NO_INTEGERS, out)
        return out

    def _run(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        with _threads.region(_threads.worthwhile(2.0 * self._work_a_row * x.shape[0])) as threads:
            kernels.predict[threads > 1](self._layers, self._vectors, self._form, x, integers, values, threads)
