"""The compile policy and what it stands on: numba's decorators, the kernel cache, the processor, threads, own loops."""

from importlib import import_module

from nbdense._compile.garbage import uncollected

with uncollected():  # whatever imports numba here imports this first, the engine too
    import_module("numba")
