"""Backends: the seam, and the CUDA engine beside the CPU's."""
