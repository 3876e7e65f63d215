"""The version, alone in a file: the build reads the literal without importing numba."""

__version__ = "0.1.0"
