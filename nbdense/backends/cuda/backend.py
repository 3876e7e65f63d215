"""The GPU's engine as a backend."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.backends.base import IntegerPredictor, IntegerProgram, Objective, Predictor, Workspace
from nbdense.backends.cuda import device, inference
from nbdense.backends.cuda.workspace import CudaWorkspace
from nbdense.network import Network


class CudaBackend:
    """Run networks on the GPU that is there; see `nbdense.backends.base.Backend`.

    Raises
    ------
    NoDeviceError
        If there is none.
    """

    def __init__(self) -> None:
        self.description = device.description()
        self._predictor: inference.Predictor | None = None  # the last network's
        self._lock = threading.Lock()  # a predictor has memory of its own

    def workspace(self, network: Network, objective: Objective, batch: int, state: npt.NDArray[Any]) -> Workspace:
        """Return the memory for runs of a network, on the device."""
        return CudaWorkspace(network, objective, batch, state)

    def predictor(self, network: Network) -> Predictor:
        """Prepare the prediction of rows."""
        return CudaPredictor(self, network)

    def predict(self, network: Network, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a network's outputs for the rows of ``x``, a C-ordered, writable matrix in its dtype."""
        out = np.empty((len(x), network.n_out), network.dtype)
        if len(x) == 0:
            return out
        with self._lock:
            self._predict(network, x, out)
        return out

    def _predict(self, network: Network, x: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        known = self._predictor
        if known is None or not known.fits(network, len(x)):
            self._predictor = None  # its memory first
            self._predictor = known = inference.predictor(network, len(x))
        with device.as_host_errors():
            known.predict(x, out)

    def load(self, program: IntegerProgram) -> IntegerPredictor:
        """Make a quantized network ready to predict; the kernels of integers are imported by the first."""
        from nbdense.backends.cuda import integers

        return integers.load(program)


class CudaPredictor:
    """Predictions of a network, in the memory of the backend's last predictor where that fits.

    Parameters
    ----------
    backend : CudaBackend
    network : Network
    """

    def __init__(self, backend: CudaBackend, network: Network) -> None:
        self._backend, self._network = backend, network

    def predict(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the outputs of rows."""
        return self._backend.predict(self._network, x)


@functools.cache
def backend() -> CudaBackend:
    """Return the backend of the GPU, made once.

    Raises
    ------
    NoDeviceError
        If there is none.
    """
    return CudaBackend()
