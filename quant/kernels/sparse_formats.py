"""Layouts of sparse kernels, made with NumPy: what the tiles of `nbdense.quant.kernels.sparse_tiles` read.

All begin with a kernel's blocks that hold a weight other than zero, listed by blocks of outputs and for each of these
by input (`blocks_of`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.quant.kernels.sparse_tiles import LANES, SIDE_BY_SIDE, STEPS, WINDOW, slices_of

SHORT = 2**16  # inputs up to which an index takes 16 bits


def index_type(n_in: int) -> type[np.unsignedinteger[Any]]:
    """Return the type of indices of so many inputs, or groups of inputs."""
    return np.uint16 if n_in <= SHORT else np.uint32


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a kernel (n_in, n_out) that hold a weight other than zero.

    Attributes
    ----------
    shape : (int, int)
        The kernel's.
    values : ndarray, (blocks, height * width)
        Weights, row by row; zero beyond the kernel's edges.
    indices : ndarray of uint16 or uint32, (blocks,)
        Number of a block's inputs: the input itself, for blocks of one.
    counts : ndarray of int32
        How many blocks there are of each ``width`` outputs; theirs are listed in this order, and by input.
    width : int
        Outputs of a block.
    height : int
        Inputs of a block.
    """

    shape: tuple[int, int]
    values: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    counts: npt.NDArray[np.int32]
    width: int
    height: int = 1

    @property
    def starts(self) -> npt.NDArray[np.int32]:
        """Numbers of the first block of each ``width`` outputs, and one past the last."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)]).astype(np.int32)

    def kernel(self) -> npt.NDArray[Any]:
        """Return the kernel with its zeros, (n_in, n_out)."""
        (n_in, n_out), (high, wide) = self.shape, (self.height, self.width)
        rows, columns = -(-n_in // high), self.counts.size
        padded = np.zeros((rows, columns, high * wide), self.values.dtype)
        padded[self.indices, np.repeat(np.arange(columns), self.counts)] = self.values
        padded = padded.reshape(rows, columns, high, wide).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(padded.reshape(rows * high, columns * wide)[:n_in, :n_out])


def blocks_of(kernel: npt.NDArray[Any], width: int, height: int = 1) -> Blocks:
    """Find the blocks of a kernel that are not zero.

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        The weights.
    width, height : int
        Outputs and inputs of a block.
    """
    n_in, n_out = kernel.shape
    rows, columns = -(-n_in // height), -(-n_out // width)
    padded = np.zeros((rows * height, columns * width), kernel.dtype)
    padded[:n_in, :n_out] = kernel
    blocks = padded.reshape(rows, height, columns, width).transpose(2, 0, 1, 3).reshape(columns, rows, height * width)
    there = (blocks != 0).any(axis=2)
    values = blocks[there]
    indices = np.nonzero(there)[1].astype(index_type(rows))
    return Blocks((n_in, n_out), values, indices, there.sum(axis=1, dtype=np.int32), width, height)


@dataclass(frozen=True, eq=False)
class SparseKernels:
    """The kernels of a program that are held without their zeros.

    Attributes
    ----------
    blocks : mapping of int to Blocks
        Blocks of layers' kernels, by the layers' places in the network.
    few : bool
        Whether the program is for few rows of data.
    """

    blocks: Mapping[int, Blocks]
    few: bool


NO_SPARSE_KERNELS = SparseKernels({}, False)


@dataclass(frozen=True, eq=False)
class Slices:
    """Blocks of outputs side by side, those with most blocks first: what the tiles for few rows read.

    Attributes
    ----------
    values : ndarray, (steps, count, width)
        Weights; zeros where a block of outputs has fewer blocks than its neighbours.
    indices : ndarray, (steps, count)
        Inputs of these blocks; of windows, uint8, their places in the window.
    starts : ndarray of int32, (groups + 1,)
        Where the steps (or windows) of a group of ``count`` blocks of outputs begin.
    outputs : ndarray of int32, (groups, count)
        Which block of outputs; -1: none.
    bases : ndarray of int32, (windows,)
        First inputs of windows; empty where there are none.
    """

    values: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    starts: npt.NDArray[np.int32]
    outputs: npt.NDArray[np.int32]
    bases: npt.NDArray[np.int32]


def _grouped(blocks: Blocks, count: int) -> npt.NDArray[np.int32]:
    """Return blocks of outputs in groups, those with most blocks first."""
    order = np.argsort(-blocks.counts, kind="stable").astype(np.int32)
    outputs = np.full(-(-order.size // count) * count, -1, np.int32)
    outputs[: order.size] = order
    return outputs.reshape(-1, count)


def slices(blocks: Blocks) -> Slices:
    """Lay blocks of one input out for few rows.

    Parameters
    ----------
    blocks : Blocks
        The kernel's.
    """
    count = slices_of(blocks.width)
    outputs = _grouped(blocks, count)
    steps = blocks.counts[outputs[:, 0]]
    starts = np.concatenate([[0], np.cumsum(steps, dtype=np.int64)]).astype(np.int32)
    # Each block's step and slice: its number among those of its outputs, and where these have come to stand.
    slot = np.empty(blocks.counts.size, np.int64)
    flat = outputs.reshape(-1)
    slot[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    slot = np.repeat(slot, blocks.counts)
    number = np.arange(blocks.indices.size) - np.repeat(blocks.starts[:-1].astype(np.int64), blocks.counts)
    step = starts[slot // count] + number
    values = np.zeros((int(starts[-1]), count, blocks.width), blocks.values.dtype)
    indices = np.zeros((int(starts[-1]), count), blocks.indices.dtype)
    values[step, slot % count], indices[step, slot % count] = blocks.values, blocks.indices
    return Slices(values, indices, starts, outputs, np.zeros(0, np.int32))


def windows(blocks: Blocks) -> Slices:
    """Lay single weights out for few rows, in windows of inputs that slide with the outputs that are furthest behind.

    Parameters
    ----------
    blocks : Blocks
        The kernel's, of single weights and at least `WINDOW` inputs.
    """
    outputs = _grouped(blocks, SIDE_BY_SIDE * LANES)
    made = [_windows_of(blocks, vector) for vector in outputs.reshape(-1, LANES)]
    # Vectors side by side have as many windows as the one that has most.
    lengths = np.array([bases.size for bases, _, _ in made]).reshape(-1, SIDE_BY_SIDE)
    starts = np.concatenate([[0], np.cumsum(lengths.max(axis=1))]).astype(np.int32)
    bases = np.zeros((int(starts[-1]), SIDE_BY_SIDE), np.int32)
    indices = np.zeros((*bases.shape, STEPS, LANES), np.uint8)
    values = np.zeros(indices.shape, blocks.values.dtype)
    for number, parts in enumerate(made):
        group, place = divmod(number, SIDE_BY_SIDE)
        rows = slice(starts[group], starts[group] + parts[0].size)
        bases[rows, place], indices[rows, place], values[rows, place] = parts
    return Slices(values[..., None], indices, starts, outputs, bases.reshape(-1))


def _windows_of(blocks: Blocks, outputs: npt.NDArray[np.int32]) -> tuple[Any, Any, Any]:
    """Return bases of the windows of a vector of outputs, places of inputs and weights (windows, STEPS, LANES)."""
    there, begin, behind = outputs >= 0, blocks.starts, blocks.shape[0]  # behind: no input
    listed = np.append(blocks.indices.astype(np.int64), behind)
    weights = np.append(blocks.values[:, 0], 0)
    now, last = (np.where(there, begin[outputs + d], 0).astype(np.int64) for d in (0, 1))
    bases, places, values = [], [], []
    while (now < last).any():
        base = min(int(np.where(now < last, listed[now], behind).min()), behind - WINDOW)
        bases.append(base)
        for _ in range(STEPS):
            following = np.where(now < last, listed[now], behind)
            taken = following < min(base + WINDOW, behind)
            values.append(np.where(taken, weights[now], 0))
            places.append(np.where(taken, following - base, 0))
            now = now + taken
    shape = (len(bases), STEPS, LANES)
    return np.array(bases, np.int32), np.reshape(places, shape), np.reshape(values, shape)
