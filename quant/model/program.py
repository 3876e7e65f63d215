"""A quantized network laid out for the integer program, and loaded into the backend that runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense.backends.base import IntegerProgram
from nbdense.engine.memory import aligned_zeros
from nbdense.quant.kernels import tables
from nbdense.quant.kernels.sparse_formats import NO_SPARSE_KERNELS, SparseKernels
from nbdense.quant.layers.layout import Layout
from nbdense.quant.model.network import QuantizedNetwork

_NO_INTEGERS, _NO_VALUES = np.empty((0, 0), np.uint8), np.empty((0, 0), np.float32)


class Program:
    """One network, ready to predict.

    Parameters
    ----------
    network : QuantizedNetwork
        What to run; not changed.
    sparse : SparseKernels, optional
        Its kernels that are run without their zeros.

    Attributes
    ----------
    nbytes : int
        Bytes of its tables, weights and constants.
    """

    def __init__(self, network: QuantizedNetwork, sparse: SparseKernels = NO_SPARSE_KERNELS) -> None:
        self._dtype = np.dtype(network.activation_dtype)
        self._n_out = network.n_out
        layout = _laid_out(network, sparse)
        packed = _packed(*layout.tables(network.final_activation == "softmax"))
        multiply_adds = (
            layer.positions * sparse.blocks[index].values.size if index in sparse.blocks else layer.multiply_adds
            for index, layer in enumerate(network.layers)
        )
        floats, vectors = layout.floats(), layout.sparse_vectors()
        program = IntegerProgram(packed, floats, network.takes_whole_call, 2.0 * sum(multiply_adds), vectors)
        self.nbytes = packed.nbytes + sum(part.nbytes for part in (*(floats or ()), *(vectors or ())))
        self._predictor = backends.current().load(program)

    def integers(self, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return the last layer's outputs, before a softmax: (rows, n_out) of the activation dtype.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
            Rows; a NaN is taken as zero.
        """
        out = np.empty((x.shape[0], self._n_out), np.uint8)
        self._predictor.predict(x, out, _NO_VALUES)
        if self._dtype == np.uint8:
            return out
        out ^= np.uint8(128)  # counted from -128, modulo 256
        return out.view(np.int8)

    def values(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the outputs as float32, (rows, n_out): dequantized, through the softmax where there is one.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
            Rows; one that holds a NaN gives a row of NaN.
        """
        out = np.empty((x.shape[0], self._n_out), np.float32)
        self._predictor.predict(x, _NO_INTEGERS, out)
        return out


def _laid_out(network: QuantizedNetwork, sparse: SparseKernels) -> Layout:
    layout = Layout(
        network.tensors,
        network.formats,
        [network.inputs_of(index) for index in range(len(network.layers))],
        [layer.input_formats for layer in network.layers],
        network.activation_dtype,
        network.rounding,
        sparse,
    )
    for index, layer in enumerate(network.layers):
        layer.lay_out(layout, index)
    return layout


def _packed(layers: npt.NDArray[Any], vectors: list[npt.NDArray[Any]], form: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Lay a program out as one array of bytes: see `nbdense.quant.kernels.tables.PARTS`."""
    parts = np.zeros(1, tables.PARTS)
    at = -(-tables.FORM_END // 64) * 64
    sources = (*vectors, layers)  # all but the last are whole cache lines
    for name, source in zip(tables.PARTS.names or (), sources, strict=False):
        parts[0][name] = at
        at += source.nbytes
    parts[0]["end"] = at
    packed = aligned_zeros(at, np.uint8)
    packed[: tables.FORM_AT], packed[tables.FORM_AT : tables.FORM_END] = parts.view(np.uint8), form.view(np.uint8)
    for name, source in zip(tables.PARTS.names or (), sources, strict=False):
        start = int(parts[0][name])
        packed[start : start + source.nbytes] = source.view(np.uint8)
    return packed
