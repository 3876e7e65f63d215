"""The GPU that is there, or numba's simulator of one: what is compiled for it, its memory, and graphs of launches.

For GPUs this is the compile policy: the one module that calls numba.cuda's decorators.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import config, cuda

from nbdense._compile.garbage import uncollected
from nbdense.backends.base import DeviceLostError, NoDeviceError

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 4 if SIMULATED else 128  # of a block, where each works on its own; the simulator's are slow
MOST_BLOCKS = 2 if SIMULATED else 4096
FULL = 264  # blocks that fill a large GPU twice


def device_function(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call.

    The simulator takes it as it is: its own device functions are not safe among a block's threads. One that names
    ``cuda`` has to be in the module of the kernels that call it, where the simulator puts another thing in its place.
    """
    return function if SIMULATED else cuda.jit(device=True)(function)


def kernel(function: Callable[..., Any], most_registers: int | None = None) -> Any:
    """Compile a function that the host launches: ``kernel[grid, block, stream](...)``."""
    if SIMULATED or most_registers is None:
        return cuda.jit(function)
    return cuda.jit(max_registers=most_registers)(function)


def intrinsic(typing_function: Callable[..., Any], twin: Callable[..., Any]) -> Any:
    """Make an intrinsic of a typing function; ``twin`` is the same in Python, for the simulator."""
    if SIMULATED:
        return twin
    from numba.cuda.extending import intrinsic as made  # which the simulator lacks

    return made(typing_function)


def spread(count: int) -> tuple[int, int]:
    """Return (blocks, threads) for ``count`` pieces of work; kernels take strides of the whole grid."""
    return max(1, min(MOST_BLOCKS, -(-count // THREADS))), THREADS


def description() -> str:
    """Return the name of the GPU.

    Raises
    ------
    NoDeviceError
        If there is none.
    """
    if SIMULATED:
        return "numba's simulator"
    if find_spec("numba_cuda") is None:  # numba's own target, which it replaces, aligns no shared memory
        raise NoDeviceError("numba-cuda is not installed")
    try:
        found = cuda.is_available()
        reason = "no GPU, or no driver of it, was found"
    except Exception as error:
        found, reason = False, str(error).strip().splitlines()[0]
    if not found:
        raise NoDeviceError(reason)
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small networks are small launches
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"


def free_memory() -> int:
    """Return the bytes of the device's memory that nothing is in."""
    return 1 << 40 if SIMULATED else int(cuda.current_context().get_memory_info()[0])


@contextmanager
def as_host_errors() -> Iterator[None]:
    """Raise the CPU engine's errors for the device's: MemoryError where memory is out."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if "OUT_OF_MEMORY" in text:
            raise MemoryError(
                f"the GPU's memory is full: take smaller batches or less data at a time ({text})"
            ) from error
        if type(error).__module__.startswith(("numba", "cuda")) and "CUDA_ERROR" in text:
            raise DeviceLostError(
                f"the GPU failed ({text}); the model has the weights that were copied back last. Begin a new process"
            ) from error
        raise


class Stream:
    """The order in which one run's work is done, and graphs of it: launches that are sent all at once."""

    def __init__(self) -> None:
        self.stream: Any = 0 if SIMULATED else cuda.stream()

    def to_device(self, array: npt.NDArray[Any]) -> Any:
        """Return a copy of an array on the device."""
        return cuda.to_device(_aligned(array), stream=self.stream)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """Return zeros on the device."""
        return self.to_device(np.zeros(shape, dtype))

    def empty(self, size: int, dtype: npt.DTypeLike) -> Any:
        """Return memory on the device, whatever is in it."""
        return cuda.device_array(size, dtype, stream=self.stream)

    def write(self, target: Any, array: npt.NDArray[Any]) -> None:
        """Copy an array into one of the device's."""
        target.copy_to_device(_aligned(array), stream=self.stream)

    def read(self, source: Any, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return what an array of the device's holds, once all work before has been done."""
        host = source.copy_to_host(stream=self.stream) if out is None or not out.flags.c_contiguous else out
        if host is out:
            source.copy_to_host(out, stream=self.stream)
        if not SIMULATED:
            self.stream.synchronize()
        if out is not None and host is not out:
            out[...] = host
        return host

    def graph(self, launches: Callable[[], None]) -> Callable[[], None]:
        """Return a call that does the same launches again, as a graph where there are graphs."""
        if SIMULATED:
            return launches
        try:
            from cuda.bindings import driver
        except ImportError:
            return launches
        handle = int(self.stream.handle)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with uncollected():  # to free the device's memory, as the garbage collector may, would end the capture
            _checked(driver.cuStreamBeginCapture(handle, mode))
            try:
                launches()
            except BaseException:
                with suppress(Exception):
                    driver.cuStreamEndCapture(handle)
                raise
            (captured,) = _checked(driver.cuStreamEndCapture(handle))
        return Graph(driver, captured, handle)


class Graph:
    """Launches that were recorded, to be sent again; what the device holds of them goes when this does.

    Parameters
    ----------
    driver : module
        CUDA's driver.
    captured : CUgraph
        The record, which is taken over.
    stream : int
        The handle of the stream to send them to.
    """

    def __init__(self, driver: Any, captured: Any, stream: int) -> None:
        self._driver, self._stream = driver, stream
        try:
            (self._made,) = _checked(driver.cuGraphInstantiate(captured, 0))
        finally:
            driver.cuGraphDestroy(captured)
        # One that is under way is freed when it has ended; at the process's end all goes anyway.
        weakref.finalize(self, driver.cuGraphExecDestroy, self._made).atexit = False

    def __call__(self) -> None:
        _checked(self._driver.cuGraphLaunch(self._made, self._stream))


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array C-ordered; of a table, whose fields are whole words, numba is told that they lie on their bounds.

    It would read them byte by byte otherwise.
    """
    array = np.ascontiguousarray(array)
    if array.dtype.names is None:
        return array
    aligned = np.dtype([(name, array.dtype[name]) for name in array.dtype.names], align=True)
    return array.view(aligned) if aligned.itemsize == array.dtype.itemsize else array


def _checked(results: tuple[Any, ...]) -> tuple[Any, ...]:
    code, *values = results
    if int(code) != 0:
        raise DeviceLostError(f"the GPU failed: {code.name}")
    return tuple(values)
