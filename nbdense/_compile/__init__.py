"""The compile policy and what it stands on: numba's decorators, the kernel cache, the processor, threads, own loops."""
