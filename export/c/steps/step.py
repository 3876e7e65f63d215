"""The base of all steps."""

from __future__ import annotations

from collections.abc import Sequence

from nbdense.export.c.source import Source
from nbdense.export.c.steps.sparse import SparseKernel


class Step:
    """A layer that a program calls.

    Attributes
    ----------
    sparse : SparseKernel or None
        Its kernel without the zeros, where it is held so.
    """

    sparse: SparseKernel | None = None

    def write(self, source: Source, label: str, inputs: Sequence[str], output: str) -> None:
        """Write the layer's constants and its call.

        Parameters
        ----------
        source : Source
            The source in the making.
        label : str
            What its constants are called by.
        inputs : sequence of str
            What it reads, in C.
        output : str
            What it writes.
        """
        raise NotImplementedError
