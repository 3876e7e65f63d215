"""The C functions that generated sources are made of."""

from __future__ import annotations

from collections.abc import Iterable

from nbdense.export.c.kernels.cmsis_nn import CMSIS_NN_KERNELS
from nbdense.export.c.kernels.floats import FLOAT_KERNELS
from nbdense.export.c.kernels.integers import INTEGER_KERNELS
from nbdense.export.c.kernels.kernel import Kernel
from nbdense.export.c.kernels.rounding import ROUNDING_KERNELS
from nbdense.export.c.kernels.sparse import SPARSE_KERNELS

# What a function calls stands before it.
KERNELS: dict[str, Kernel] = {
    **ROUNDING_KERNELS,
    **INTEGER_KERNELS,
    **FLOAT_KERNELS,
    **SPARSE_KERNELS,
    **CMSIS_NN_KERNELS,
}


def with_needs(names: Iterable[str]) -> list[str]:
    """Return kernels and all that they call, each behind what it calls.

    Parameters
    ----------
    names : iterable of str
        Keys of KERNELS.
    """
    wanted = set(names)
    for name in reversed(KERNELS):
        if name in wanted:
            wanted.update(KERNELS[name].needs)
    return [name for name in KERNELS if name in wanted]
