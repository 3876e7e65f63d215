"""Backends, which run networks on a device: the seam (`base`), and an engine of the CPU's behind it (`cpu`)."""

from __future__ import annotations

from nbdense.backends.base import Backend
from nbdense.backends.cpu.backend import CpuBackend

_current: Backend = CpuBackend()


def current() -> Backend:
    """Return the backend that everything runs on."""
    return _current
