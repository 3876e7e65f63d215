"""Backends, which run networks on a device: the seam (`base`), and behind it engines of the CPU and of GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdense.backends.base import Backend, NoDeviceError
from nbdense.backends.cpu.backend import CpuBackend

if TYPE_CHECKING:
    from nbdense.backends.cuda.backend import CudaBackend

_cpu = CpuBackend()
_current: Backend = _cpu


def current() -> Backend:
    """Return the backend that everything runs on."""
    return _current


def set_device(device: str) -> None:
    """Let everything run on a device from now on: fit, evaluate, predict, one's own steps, quantized models.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        "cuda" is the NVIDIA GPU that numba chooses, and takes the extra ``nbdense[cuda]``. Quantized models stay where
        they were first used, and so does one's own loop over a model until that is compiled again.

    Raises
    ------
    ValueError
        If it is neither.
    RuntimeError
        If there is no GPU, or nothing that compiles for it.
    """
    global _current
    if device == "cpu":
        _current = _cpu
    elif device == "cuda":
        _current = _cuda()
    else:
        raise ValueError(f"set_device: device must be 'cpu' or 'cuda', got {device!r}")


def gpu() -> str:
    """Return the name of the GPU that ``set_device("cuda")`` takes, or why it would take none."""
    try:
        return _cuda().description
    except NoDeviceError as error:
        return f"none: {error.reason}"


def _cuda() -> CudaBackend:
    """Return the GPU's backend; the first call imports numba.cuda."""
    try:
        from nbdense.backends.cuda.backend import backend
    except ImportError as error:  # numba.cuda is numba-cuda's; that of numba's own is on its way out
        raise NoDeviceError(str(error)) from error
    return backend()
