"""Predicting on the device: narrow networks of dense layers in one launch, others row by row of the table."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.backends.base import NOTHING, Data
from nbdense.backends.cuda.device import Stream, as_host_errors, spread
from nbdense.backends.cuda.fused import prediction
from nbdense.backends.cuda.translation import Translation, loops_of
from nbdense.backends.cuda.workspace import CudaWorkspace
from nbdense.engine.elementwise.activations import SOFTMAX
from nbdense.engine.tables import GATHER, PHASE, ROWS
from nbdense.network import Network

MEMORY = 1 << 28  # bytes of activations, at most, with which rows go through a network
FUSED_ROWS = 1 << 20  # that are on the device at a time


@functools.lru_cache(maxsize=8)
def _fused(width: int, addresses: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the kernels of networks of a width whose tables name these loops on demand."""
    translate = Translation("float32", addresses)
    return prediction.make(translate, width), prediction.softmax(translate)


class Predictor:
    """Predict by a network; its parameters are copied to the device with each call.

    Parameters
    ----------
    network : Network
    rows : int or None
        That it has room for, in one call; None: any number.
    """

    def __init__(self, network: Network, rows: int | None) -> None:
        self._network, self._rows, self._table = network, rows, network.inference.tobytes()

    def fits(self, network: Network, rows: int) -> bool:
        """Tell whether this is the predictor for so many rows of a network, as its table is now."""
        enough = self._rows is None or rows <= self._rows
        return enough and network is self._network and network.inference.tobytes() == self._table

    def predict(self, x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write the network's outputs for the rows of ``x``."""
        raise NotImplementedError


class FusedPredictor(Predictor):
    """A network of dense layers, none wider than ``width``."""

    def __init__(self, network: Network, width: int) -> None:
        super().__init__(network, None)
        self._width = width
        self._softmax = bool(network.inference[-1]["activation"] == SOFTMAX)
        self._loops = loops_of(network.inference)
        self.stream = Stream()
        self._layers = self.stream.to_device(network.inference)
        self._params = self.stream.to_device(network.params)

    def run(self, x: Any, out: Any) -> None:
        """Launch the network on flat arrays of the device's."""
        network, stream = self._network, self.stream.stream
        kernel, softmax = _fused(self._width, self._loops)
        rows = x.size // network.n_in * network.positions_out
        tile = prediction.tile_of(self._width)
        kernel[-(-rows // tile.rows), tile.threads, stream](self._layers, self._params, x, out, rows)
        if self._softmax:
            blocks, threads = spread(rows)
            softmax[blocks, threads, stream](out, int(network.inference[-1]["n_out"]))

    def predict(self, x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write the network's outputs for the rows of ``x``."""
        self.stream.write(self._params, self._network.params)
        for first in range(0, len(x), FUSED_ROWS):
            part, results = x[first : first + FUSED_ROWS], out[first : first + FUSED_ROWS]
            there = self.stream.to_device(part.reshape(-1))
            made = self.stream.empty(results.size, np.float32)
            self.run(there, made)
            self.stream.read(made, results.reshape(-1))


class RowwisePredictor(Predictor):
    """Any network, by its table for inference."""

    def __init__(self, network: Network, rows: int) -> None:
        super().__init__(network, rows)
        most = max(1, MEMORY // (2 * network.width * network.dtype.itemsize))
        self._workspace = CudaWorkspace(
            network, NOTHING, min(max(rows, 1), most), np.zeros((1, network.params.size), network.dtype)
        )

    def predict(self, x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write the network's outputs for the rows of ``x``."""
        workspace, layers = self._workspace, self._network.inference
        phases = np.array([(ROWS, GATHER, 0, len(layers), 0, 0)], PHASE)
        for first in range(0, len(x), workspace.batch):
            part = x[first : first + workspace.batch]
            data = Data(_checks.source(part), _checks.no_source(), _checks.no_source(), len(part))
            workspace.run(phases, data, layers=layers)
            out[first : first + len(part)] = workspace.tensor(layers[-1], "output", len(part)).reshape(len(part), -1)


def predictor(network: Network, rows: int) -> Predictor:
    """Return what predicts ``rows`` rows at a time by a network as its table is now."""
    with as_host_errors():
        width = prediction.width_of(network, network.inference)
        return RowwisePredictor(network, rows) if width is None else FusedPredictor(network, width)
