"""The compiled engine: kernels, and the few entries that walk a network's layer table."""

from nbdense import _compile as _compile  # before any module here imports numba
