"""The pieces of a kernel that are kept or removed together: single weights, blocks, and N of each M inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain, positive_int
from nbdense.network import Row
from nbdense.quant.pruning.criteria import Combine

NEURON = "neuron"
BLOCK_SIZE = (1, 16)

Scores = npt.NDArray[np.float64]
Kept = npt.NDArray[np.bool_]


class Structure(Protocol):
    """Protocol of a structure: how kernels fall into pieces, and which of these stay."""

    def check(self, owner: str, rows: Sequence[Row], sparsity: float) -> None:
        """Raise where kernels cannot be pruned so."""

    def scores(self, values: npt.NDArray[Any], combine: Combine) -> Scores:
        """Return the pieces' scores from those of a kernel's weights."""

    def select(self, scores: Sequence[Scores], sparsity: float, together: bool) -> list[Kept]:
        """Tell which pieces of each kernel stay: those of the highest scores."""

    def expand(self, kept: Kept, shape: tuple[int, ...]) -> Kept:
        """Tell which weights of a kernel stay, from its pieces."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of some inputs by some outputs; single weights are the smallest.

    The last blocks of a row or column may have fewer weights: scores are means over those that there are.

    Attributes
    ----------
    inputs, outputs : int
        Rows and columns of a block.
    """

    inputs: int = 1
    outputs: int = 1

    def check(self, owner: str, rows: Sequence[Row], sparsity: float) -> None:
        """Take any kernel."""

    def scores(self, values: npt.NDArray[Any], combine: Combine) -> Scores:
        """Return the blocks' scores, (blocks of inputs, blocks of outputs)."""
        if (self.inputs, self.outputs) == (1, 1):
            return np.asarray(values, np.float64)
        return combine(np.asarray(values, np.float64), self._mean)

    def _mean(self, values: Scores) -> Scores:
        """Return each block's mean."""
        first, second = (np.arange(0, n, size) for n, size in zip(values.shape, self._size, strict=True))
        sums = np.add.reduceat(np.add.reduceat(values, first, axis=0), second, axis=1)
        counts = [np.diff(starts, append=n) for starts, n in zip((first, second), values.shape, strict=True)]
        mean: Scores = sums / np.outer(*counts)
        return mean

    @property
    def _size(self) -> tuple[int, int]:
        return self.inputs, self.outputs

    def select(self, scores: Sequence[Scores], sparsity: float, together: bool) -> list[Kept]:
        """Keep all but the share ``sparsity`` of all blocks together, or of each kernel's."""
        if not together:
            return [kept(score.ravel(), sparsity).reshape(score.shape) for score in scores]
        flat = kept(np.concatenate([score.ravel() for score in scores]), sparsity)
        ends = np.cumsum([score.size for score in scores])[:-1]
        return [part.reshape(score.shape) for part, score in zip(np.split(flat, ends), scores, strict=True)]

    def expand(self, kept: Kept, shape: tuple[int, ...]) -> Kept:
        """Tell which weights stay: those of the blocks that do."""
        wide = np.repeat(np.repeat(kept, self.inputs, axis=0), self.outputs, axis=1)
        return wide[: shape[0], : shape[1]]


@dataclass(frozen=True)
class NOfM:
    """At most ``n`` weights other than zero among each ``m`` inputs of an output, one after the other.

    Method: Mishra et al., "Accelerating Sparse Deep Neural Networks" (2021, arXiv:2104.08378), section 3.
    """

    n: int
    m: int

    def check(self, owner: str, rows: Sequence[Row], sparsity: float) -> None:
        """Raise for a kernel whose inputs do not divide into groups, and for another sparsity than 1 - n / m."""
        if abs(sparsity - (1 - self.n / self.m)) > 1e-9:
            raise ValueError(
                f"{owner}: structure '{self.n}:{self.m}' has the sparsity {1 - self.n / self.m:g}, got {sparsity:g}"
            )
        for row in rows:
            if row.n_in % self.m:
                raise ValueError(
                    f"{owner}: structure '{self.n}:{self.m}': {row.label} has {row.n_in} inputs, which {self.m} does "
                    "not divide; exempt it, or take another structure"
                )

    def scores(self, values: npt.NDArray[Any], combine: Combine) -> Scores:
        """Return the weights' own scores."""
        return np.asarray(values, np.float64)

    def select(self, scores: Sequence[Scores], sparsity: float, together: bool) -> list[Kept]:
        """Keep all but the share ``sparsity`` of each group, rounded to whole weights."""
        count = self.m - round(sparsity * self.m)
        return [self._kept(score, count) for score in scores]

    def _kept(self, score: Scores, count: int) -> Kept:
        groups = score.reshape(-1, self.m, score.shape[1])
        ranks = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1, kind="stable")
        return (ranks < count).reshape(score.shape)

    def expand(self, kept: Kept, shape: tuple[int, ...]) -> Kept:
        """Return what stays as it is."""
        return kept


def kept(scores: Scores, sparsity: float) -> Kept:
    """Mark all but the round(sparsity * size) lowest; of equals the first are kept.

    Parameters
    ----------
    scores : ndarray of float, (size,)
        What is ranked.
    sparsity : float
        The share to remove, in [0, 1].
    """
    return highest(scores, scores.size - round(sparsity * scores.size))


def highest(scores: Scores, count: int) -> Kept:
    """Mark the ``count`` highest; of equals the first.

    Parameters
    ----------
    scores : ndarray of float, (size,)
        What is ranked.
    count : int
        How many are marked.
    """
    marked = np.zeros(scores.size, np.bool_)
    marked[np.argsort(-scores, kind="stable")[:count]] = True
    return marked


def structure_of(owner: str, structure: Any, block_size: Any) -> Structure:
    """Return the structure of a name.

    Parameters
    ----------
    owner : str
        What was asked, for errors.
    structure : str
        "unstructured", "block", or "n:m" such as "2:4".
    block_size : int or (int, int), optional
        Inputs and outputs of a block.

    Raises
    ------
    ValueError
        If there is no such structure, or no such block.
    """
    if structure == "block":
        size = BLOCK_SIZE if block_size is None else block_size
        sides = (size, size) if np.ndim(size) == 0 else tuple(size)
        if len(sides) != 2:
            raise ValueError(f"{owner}: block_size must be a number, or (inputs, outputs), got {block_size!r}")
        return Blocks(*(positive_int(owner, "block_size", side) for side in sides))
    if block_size is not None:
        raise ValueError(f"{owner}: block_size is of structure 'block', and structure is {structure!r}")
    if structure == "unstructured":
        return Blocks()
    pattern = re.fullmatch(r"(\d+):(\d+)", structure) if isinstance(structure, str) else None
    if pattern is not None:
        n, m = int(pattern[1]), int(pattern[2])
        if 1 <= n < m:
            return NOfM(n, m)
        raise ValueError(f"{owner}: structure 'n:m' keeps n of each m weights, 1 <= n < m, got {structure!r}")
    named = "'unstructured', 'block', 'neuron', or 'n:m' such as '2:4'"
    raise ValueError(f"{owner}: structure must be {named}, got {plain(structure)!r}")
