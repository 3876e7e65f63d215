"""Programs of a sparse model: for few rows of data a call, for many, and between them dense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense.network import Network
from nbdense.network.builder import NetworkBuilder
from nbdense.quant.kernels.sparse_formats import NO_SPARSE_KERNELS, SparseKernels
from nbdense.quant.kernels.sparse_tiles import LANES
from nbdense.quant.layers.float_layers import FloatLayer
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.program import Program
from nbdense.quant.sparse import forms
from nbdense.quant.sparse.forms import Form


@dataclass(frozen=True)
class Limits:
    """Numbers of rows a call for which the programs of a sparse model are used; between them it is run dense.

    Attributes
    ----------
    few : int
        Rows up to which the forms for few are used; also for as many that many rows leave beside whole vectors.
    many : int
        Rows from which those for many are used.
    """

    few: int = 4
    many: int = 0


class EngineProgram:
    """A network in float, run by the engine's own program: that shares a large network's columns, even of one row.

    Parameters
    ----------
    network : QuantizedNetwork
        One whose layers are all in float.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        made = engine_network(network)
        self.nbytes = made.params.nbytes + made.inference.nbytes
        self._predictor = backends.current().predictor(made)

    def values(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the outputs of rows, as `Program.values`.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in)
        """
        return self._predictor.predict(x)

    def integers(self, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Refuse: there are none."""
        raise NotImplementedError("a network in float has no integers")


def program_of(network: QuantizedNetwork, kernels: SparseKernels) -> Program | EngineProgram:
    """Return the program that runs a network with some of its kernels sparse.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    kernels : SparseKernels
        Those.
    """
    if not kernels.blocks and all(isinstance(layer, FloatLayer) for layer in network.layers):
        return EngineProgram(network)
    return Program(network, kernels)


class SparsePrograms:
    """A network's programs for few rows of data a call, for many and for those between; the results are the same.

    Parameters
    ----------
    network : QuantizedNetwork
        What to run.
    choice : mapping of str to Form
        Forms of its dense layers, by name.
    limits : Limits
        Rows a call for which the forms are used.
    """

    def __init__(self, network: QuantizedNetwork, choice: Mapping[str, Form], limits: Limits) -> None:
        kernels = {size: forms.kernels(network, choice, size) for size in forms.SIZES}
        self._few = program_of(network, kernels["few"])
        self._by_vectors = any(blocks.height == 1 for blocks in kernels["many"].blocks.values())
        same = not self._by_vectors and set(kernels["few"].blocks) == set(kernels["many"].blocks)
        self._many = self._few if same else program_of(network, kernels["many"])
        self._between = self._many
        if not same and limits.many > limits.few + 1:
            self._between = program_of(network, NO_SPARSE_KERNELS) if kernels["few"].blocks else self._few
        self._limits = limits
        programs = {id(program): program for program in (self._few, self._between, self._many)}
        self.nbytes = sum(program.nbytes for program in programs.values())

    def values(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the outputs of rows, as `Program.values`.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in)
        """
        rows, program = len(x), self._for(len(x))
        over = rows % LANES
        if program is self._many and self._by_vectors and rows > LANES and 0 < over <= self._limits.few:
            return np.concatenate([program.values(x[: rows - over]), self._few.values(x[rows - over :])])
        return program.values(x)

    def integers(self, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return the last layer's outputs, as `Program.integers`.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in)
        """
        return self._for(len(x)).integers(x)

    def _for(self, rows: int) -> Program | EngineProgram:
        if rows <= self._limits.few:
            return self._few
        return self._between if rows < self._limits.many else self._many


def engine_network(network: QuantizedNetwork) -> Network:
    """Return a network in float as the engine's.

    Parameters
    ----------
    network : QuantizedNetwork
        One whose layers are all in float.
    """
    builder = NetworkBuilder(network.input_shape)
    tensors = [(builder.pin(), builder.shape)]  # where each lies, and its shape
    for index, layer in enumerate(network.layers):
        assert isinstance(layer, FloatLayer)
        sources = [tensors[source] for source in network.inputs_of(index)]
        builder.output, builder.shape = sources[0]
        at = {name: builder.parameter(f"{index}/{name}", value) for name, value in layer.tensors.items()}
        if layer.what == "dense":
            builder.dense(layer.name, layer.n_out, layer.function, at["kernel"], at.get("bias", -1))
        elif layer.what == "activation":
            builder.activation(layer.name, layer.function)
        elif layer.what == "flatten":
            builder.flatten(layer.name)
        elif layer.what == "add":
            builder.add(layer.name, sources[1][0])
        else:
            missing = {name: -1 for name in layer.form.allowed if name not in at}
            builder.row(layer.form.kind, layer.name, **at, **missing, **layer.settings)
        tensors.append((builder.pin(), builder.shape))
    return builder.finish()
