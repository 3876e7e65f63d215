"""Kernels without their zeros: blocks of one input and some outputs, each behind the last by a number of inputs.

That number is one byte. Where more than 255 inputs lie between two blocks, blocks of zeros stand on the way. A block
written out as code would take more: six bytes and up for each weight, on any processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.export.c.kernels.sparse import WIDTHS
from nbdense.export.c.source import Source

_FUNCTION = 160  # bytes, about, of the C function that runs such kernels
_FARTHEST = 255  # inputs from a block to the next
_MOST = 2**16 - 1  # blocks of an output


@dataclass(frozen=True, eq=False)
class SparseKernel:
    """The blocks of a kernel that hold a weight other than zero, by outputs, and by input for each of these.

    Attributes
    ----------
    width : int
        Outputs of a block.
    weights : ndarray, (blocks, width)
        Weights; zero beyond the last output.
    gaps : ndarray of uint8, (blocks,)
        How many inputs each lies behind the one before it, or of an output's first block behind the first input.
    counts : ndarray of uint16
        How many blocks there are of each ``width`` outputs.
    """

    width: int
    weights: npt.NDArray[Any]
    gaps: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        """Bytes of flash."""
        return self.weights.nbytes + self.gaps.nbytes + self.counts.nbytes

    def write(self, source: Source, label: str) -> dict[str, str]:
        """Define the arrays of gaps and counts; return what a layer's structure has of them.

        Parameters
        ----------
        source : Source
            The source in the making.
        label : str
            What they are called by.
        """
        return {
            "gaps": source.array("uint8_t", f"gaps_{label}", self.gaps),
            "counts": source.array("uint16_t", f"counts_{label}", self.counts),
        }


def sparse_kernel(kernel: npt.NDArray[Any], dense_bytes: int) -> SparseKernel | None:
    """Return a kernel without its zeros, of the smallest blocks in bytes; None where it is smaller with them.

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        The weights.
    dense_bytes : int
        Bytes of the kernel with its zeros.
    """
    if np.count_nonzero(kernel) * (kernel.itemsize + 1 / max(WIDTHS)) + _FUNCTION >= dense_bytes:
        return None
    made = [sparse for width in WIDTHS if (sparse := _sparse(kernel, width)) is not None]
    best = min(made, key=lambda sparse: sparse.nbytes, default=None)
    return best if best is not None and best.nbytes + _FUNCTION < dense_bytes else None


def _sparse(kernel: npt.NDArray[Any], width: int) -> SparseKernel | None:
    """Return the blocks of a width; None where an output has too many to be counted."""
    n_in, n_out = kernel.shape
    padded = np.zeros((n_in, -(-n_out // width) * width), kernel.dtype)
    padded[:, :n_out] = kernel
    blocks = padded.reshape(n_in, -1, width).transpose(1, 0, 2)  # by outputs, then by input
    there = (blocks != 0).any(axis=2)
    there[0, 0] |= not there.any()  # C has no empty arrays
    for row in there:
        inputs = np.flatnonzero(row)
        gaps = np.diff(inputs, prepend=0)
        far = gaps > _FARTHEST
        for end, gap in zip(inputs[far].tolist(), gaps[far].tolist(), strict=True):
            row[end - gap + _FARTHEST : end : _FARTHEST] = True
    counts, (outputs, inputs) = there.sum(axis=1), np.nonzero(there)
    if counts.max() > _MOST:
        return None
    gaps = np.where(np.diff(outputs, prepend=-1) != 0, inputs, np.diff(inputs, prepend=0))
    return SparseKernel(width, blocks[there], gaps.astype(np.uint8), counts.astype(np.uint16))
