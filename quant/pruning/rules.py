"""The options of pruning, checked, and the masks that networks get by them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.network import Network, Row
from nbdense.quant.pruning.criteria import CRITERIA, Criterion, dense_rows, gradients, kernel_views
from nbdense.quant.pruning.structures import Kept, Scores, Structure, highest, structure_of

SCOPES = ("global", "layer")


@dataclass(frozen=True)
class Rules:
    """Rules by which weights are kept.

    Attributes
    ----------
    owner : str
        What was called, for errors.
    structure : Structure
        The pieces of kernels that go together.
    scope : str
        "global" or "layer".
    criterion : Criterion
        What weights are worth.
    exempt : tuple of str
        Names of layers that are not pruned.
    calibration : object
        Data for the criterion.
    """

    owner: str
    structure: Structure
    scope: str
    criterion: Criterion
    exempt: tuple[str, ...]
    calibration: Any

    def rows(self, network: Network) -> list[Row]:
        """Return the rows whose kernels are pruned.

        Raises
        ------
        ValueError
            If there is none, a layer that is exempted does not exist, or weights are not finite.
        """
        return pruned_rows(self.owner, network, self.exempt)

    def check(self, model: Any, network: Network, sparsity: float) -> None:
        """Raise ValueError where a network cannot be pruned by these rules to a sparsity."""
        self.structure.check(self.owner, self.rows(network), sparsity)
        if self.criterion.needs and self.calibration is None:
            raise ValueError(f"{self.owner}: this criterion needs calibration=, {self.criterion.needs}")
        if model is None and self.criterion.takes_gradients:
            raise ValueError(f"{self.owner}: this criterion needs a compiled Sequential, got a Network")

    def mask(self, model: Any, network: Network, sparsity: float, exchanged: float = 0.0) -> npt.NDArray[Any]:
        """Return the mask by which a network has a sparsity: 0 or 1 for each of its parameters.

        Parameters
        ----------
        model : Sequential or None
            The model that it is of, where gradients are wanted.
        network : Network
            The network. What is zero in it goes first.
        sparsity : float
            Share of the pieces of kernels to remove, rounded to whole ones.
        exchanged : float
            Share of the pieces that stay whose place others take: those with the largest gradients.
        """
        rows = self.rows(network)
        scores = self.scores(model, network, rows)
        kept = self.structure.select(scores, sparsity, self.scope == "global")
        if exchanged:
            kept = self._exchanged(model, network, rows, scores, kept, exchanged)
        mask = np.ones_like(network.params) if network.mask is None else network.mask.copy()  # of other layers
        for masked, pieces in zip(kernel_views(network, rows, mask), kept, strict=True):
            masked[...] = self.structure.expand(pieces, masked.shape)
        return mask

    def scores(self, model: Any, network: Network, rows: Sequence[Row]) -> list[Scores]:
        """Return the scores of all pieces of the rows' kernels: lowest for those that are zero."""
        scores = []
        for row, values in zip(rows, self.criterion.scores(model, network, rows, self.calibration), strict=True):
            score = self.structure.scores(values, self.criterion.combine)
            filled = self.structure.scores(row.kernel != 0, lambda values, mean: mean(values))
            scores.append(np.where(filled > 0, score, -np.inf))
        return scores

    def _exchanged(
        self,
        model: Any,
        network: Network,
        rows: Sequence[Row],
        scores: Sequence[Scores],
        kept: Sequence[Kept],
        share: float,
    ) -> list[Kept]:
        """Drop the lowest of what is kept, and let as many others grow: those with the largest gradients."""
        total = np.zeros(network.params.size)
        for gradient in gradients(model, network, self.calibration):
            total += gradient
        norm = CRITERIA["magnitude"].combine
        sizes = [self.structure.scores(np.abs(view), norm) for view in kernel_views(network, rows, total)]
        groups = [list(range(len(rows)))] if self.scope == "global" else [[i] for i in range(len(rows))]
        made = list(kept)
        for group in groups:
            stays, score, size = (
                np.concatenate([arrays[i].ravel() for i in group]) for arrays in (kept, scores, sizes)
            )
            count = round(share * int(stays.sum()))
            rest = highest(np.where(stays, score, -np.inf), int(stays.sum()) - count)
            rest |= highest(np.where(rest, -np.inf, size), count)
            ends = np.cumsum([kept[i].size for i in group])[:-1]
            for i, part in zip(group, np.split(rest, ends), strict=True):
                made[i] = part.reshape(kept[i].shape)
        return made


def rules_of(
    owner: str,
    *,
    structure: Any = "unstructured",
    scope: str = "global",
    criterion: str = "magnitude",
    exempt: Any = (),
    block_size: Any = None,
    calibration: Any = None,
) -> Rules:
    """Return rules, of options that are checked.

    Parameters
    ----------
    owner : str
        What was called, for errors.
    structure, scope, criterion, exempt, block_size, calibration
        As for `nbdense.quant.prune`.

    Raises
    ------
    ValueError
        For an option that there is not.
    """
    choose(owner, "scope", scope, SCOPES)
    choose(owner, "criterion", criterion, CRITERIA)
    pieces = structure_of(owner, structure, block_size)
    return Rules(owner, pieces, scope, CRITERIA[criterion], names_of(owner, exempt), calibration)


def choose(owner: str, option: str, value: Any, available: Iterable[str]) -> None:
    """Raise ValueError for a value of an option that there is not."""
    known = list(available)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{owner}: {option} must be {' or '.join(map(repr, known))}, got {value!r}")


def names_of(owner: str, exempt: Any) -> tuple[str, ...]:
    """Return names of layers, of one or several."""
    names = (exempt,) if isinstance(exempt, str) else tuple(exempt)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{owner}: exempt must be names of layers, got {name!r}")
    return names


def share_of(owner: str, name: str, value: Any) -> float:
    """Return a sparsity, or raise ValueError if it does not lie in [0, 1)."""
    share = float(value) if hasattr(value, "__float__") and not isinstance(value, bool) else np.nan
    if not 0 <= share < 1:
        raise ValueError(f"{owner}: {name} must lie in [0, 1), got {value!r}")
    return share


def pruned_rows(owner: str, network: Network, exempt: Sequence[str] = ()) -> list[Row]:
    """Return the dense rows of a network but for those that are exempted.

    Parameters
    ----------
    owner : str
        What was called, for errors.
    network : Network
        The network.
    exempt : sequence of str
        Names of layers.

    Raises
    ------
    ValueError
        If there is none, a layer that is exempted does not exist, or weights are not finite.
    """
    dense = dense_rows(network)
    if not dense:
        raise ValueError(f"{owner}: the model has no Dense layer, and only their kernels are pruned")
    names = [row.name for row in dense]
    for name in exempt:
        if name not in names:
            raise ValueError(f"{owner}: exempt: no Dense layer named {name!r}; there are: {', '.join(names)}")
    rows = [row for row in dense if row.name not in exempt]
    if not rows:
        raise ValueError(f"{owner}: all Dense layers are exempted")
    for row in rows:
        if not np.isfinite(row.kernel).all():
            raise ValueError(f"{owner}: {row.label}: its weights are not all finite")
    return rows


def hold(network: Network, mask: npt.NDArray[Any]) -> None:
    """Give a network a mask, and set what it holds to zero.

    Parameters
    ----------
    network : Network
        Changed.
    mask : ndarray, flat
        As `Rules.mask` returns it.
    """
    network.mask = mask
    network.params[mask == 0] = 0  # a product with the mask would leave negative zeros
    network.version += 1
