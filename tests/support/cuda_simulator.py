"""numba's simulator of a GPU, with the threads of a block taking turns, graphs, and no launches that a GPU refuses.

Its own threads all run at once while another polls them, and so wait most of the time; and two of them that make a
block's shared array at the same moment get one each.
"""

import functools
import threading

import numpy as np
from numba.cuda.simulator import api as simulated
from numba.cuda.simulator import kernel, kernelapi

from nbdense.backends.cuda import device


class Shared(kernelapi.FakeCUDAShared):
    """Shared memory that holds anything, as a GPU's does: NaN, before it is written."""

    def __init__(self, size):
        super().__init__(size)
        self._dynshared[:] = -1


class Turn(kernel.BlockThread):
    """A thread that runs up to its next syncthreads when it is its turn."""

    def __init__(self, function, block, place, thread):
        super().__init__(function, block, place, thread, False)
        self.ended = False
        self._mine, self._over = threading.Lock(), threading.Lock()
        self._mine.acquire()
        self._over.acquire()

    def run(self):
        self._mine.acquire()
        super().run()
        self.ended = True
        self._over.release()

    def syncthreads(self):
        self._over.release()
        self._mine.acquire()

    def take(self):
        self._mine.release()
        self._over.acquire()


class Block(kernel.BlockManager):
    def run(self, place, *arguments):
        function = functools.partial(self._f, *arguments)
        threads = [Turn(function, self, place, thread) for thread in np.ndindex(*self._block_dim)]
        for thread in threads:
            thread.start()
        while threads:
            for thread in threads:
                thread.take()
                if thread.exception:
                    raise thread.exception[0].with_traceback(thread.exception[1])
            threads = [thread for thread in threads if not thread.ended]


class Kernel(kernel.FakeCUDAKernel):
    """A kernel whose launches are of sizes that a GPU takes, and that numba-cuda does: ints, not NumPy's."""

    def __getitem__(self, configuration):
        grid, threads, *rest = configuration
        grid = grid if isinstance(grid, tuple) else (grid,)
        shared = rest[1] if len(rest) > 1 else 0
        assert all(type(size) is int for size in (*grid, threads, shared)), (self.fn.__name__, configuration)
        assert all(0 < size <= most for size, most in zip(grid, (2**31 - 1, 65535, 65535), strict=False)), grid
        assert 0 < threads <= 1024
        assert shared <= 48 << 10
        self.configuration = configuration
        return super().__getitem__(configuration)

    def __call__(self, *arguments):
        if RECORDS:
            RECORDS[-1].append((self, self.configuration, arguments))
        else:
            super().__call__(*arguments)


RECORDS = []  # of the graph that is being recorded


def graph(stream, launches):
    """Record launches without doing them; return a call that does them, with the arguments that they had."""
    RECORDS.append([])
    try:
        launches()
    finally:
        record = RECORDS.pop()

    def replay():
        for launched, configuration, arguments in record:
            launched[configuration](*arguments)

    return replay


def take_turns():
    """Let the simulator run blocks in this way; the process has NUMBA_ENABLE_CUDASIM=1."""
    kernel.BlockManager = Block
    kernelapi.FakeCUDAShared = Shared
    simulated.FakeCUDAKernel = Kernel
    device.Stream.graph = graph
