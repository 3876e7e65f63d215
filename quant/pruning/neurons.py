"""Neurons that are removed for good: layers get narrower, and all that reads them.

Method: Li et al., "Pruning Filters for Efficient ConvNets" (2017, arXiv:1608.08710), section 3: by the norm of a
neuron's incoming weights. Their section 3.3 prunes what a sum adds up together, as is done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import ADD, DENSE, RESHAPE, kind_of
from nbdense.engine.tables import FACTORS
from nbdense.layers import Composite, Dense, Layer
from nbdense.models import Sequential
from nbdense.models.derived import empty_like
from nbdense.network import Network, Row
from nbdense.quant.pruning.criteria import dense_rows
from nbdense.quant.pruning.rules import Rules
from nbdense.quant.pruning.structures import Scores, kept

Axis = tuple[int, int]  # a width, and how often its columns come, one set after the other
Indices = npt.NDArray[np.int64]


@dataclass
class _Width:
    """Columns that only go together: those of every tensor that is added to, or made elementwise of, one of them."""

    size: int
    fixed: bool = False
    producers: list[int] = field(default_factory=list)  # rows of the table that make them by a kernel


class Widths:
    """The widths of a network: which columns of which parameters belong to which neurons.

    Parameters
    ----------
    network : Network
        The network.

    Attributes
    ----------
    axes : dict of str to tuple
        Of each parameter's name, the width that each of its axes goes along with, and how often that is repeated.
    """

    def __init__(self, network: Network) -> None:
        self.widths: list[_Width] = []
        self._same: list[int] = []  # of each width, one that it has become the same as
        self.axes: dict[str, tuple[Axis, ...]] = {}
        self._names = {parameter.offset: parameter.name for parameter in network.parameters}
        table = network.layers
        of = {int(table[0]["input"]): (self._new(int(table[0]["n_in"]), fixed=True), 1)}  # by buffer
        for index, row in enumerate(table):
            of[int(row["output"])] = self._row(index, row, of)
        self.widths[self.root(of[int(table[-1]["output"])][0])].fixed = True

    def _new(self, size: int, fixed: bool = False) -> int:
        self.widths.append(_Width(size, fixed))
        self._same.append(len(self._same))
        return len(self._same) - 1

    def root(self, width: int) -> int:
        """Return the number by which a width is known, of those that have become the same."""
        while self._same[width] != width:
            width = self._same[width]
        return width

    def _row(self, index: int, row: Any, of: Mapping[int, Axis]) -> Axis:
        """Note a row's parameters; return the columns that it makes."""
        source, kind = of[int(row["input"])], kind_of(row)
        if kind is RESHAPE:
            return source[0], source[1] * int(row["positions"])
        made = source
        if kind is DENSE:
            made = self._new(int(row["n_out"])), 1
            self.widths[made[0]].producers.append(index)
        elif kind is ADD:
            self._join(source[0], of[int(row["second"])][0])
        for name, offset in kind.offsets(row).items():
            if kind.vector != FACTORS:
                self.axes[self._names[offset]] = (source, made) if name == "kernel" else (made,)
        return made

    def _join(self, first: int, second: int) -> None:
        first, second = sorted((self.root(first), self.root(second)))
        if first != second:
            kept, other = self.widths[first], self.widths[second]
            kept.fixed |= other.fixed
            kept.producers += other.producers
            self._same[second] = first

    def free(self) -> list[int]:
        """Return the widths that may change: all but the input's and the output's."""
        return [i for i, width in enumerate(self.widths) if self.root(i) == i and not width.fixed]

    def indices(self, name: str, chosen: Mapping[int, Indices]) -> tuple[Indices, ...]:
        """Return what stays of each axis of a parameter.

        Parameters
        ----------
        name : str
            The parameter's name.
        chosen : mapping of int to ndarray
            Columns that stay, of the widths that change.
        """
        axes = []
        for width, repeats in self.axes[name]:
            size, root = self.widths[width].size, self.root(width)
            columns = chosen.get(root, np.arange(size))
            axes.append((np.arange(repeats)[:, None] * size + columns).ravel())
        return tuple(axes)


def without_neurons(model: Sequential, network: Network, rules: Rules, sparsity: float) -> Sequential:
    """Return a model whose lowest neurons are gone.

    Parameters
    ----------
    model : Sequential
        The model.
    network : Network
        Its network.
    rules : Rules
        Scope, criterion and exempted layers.
    sparsity : float
        Share of the neurons to remove, rounded to whole ones.

    Raises
    ------
    ValueError
        If there are none that could go, or a layer would lose all.
    """
    widths = Widths(network)
    made_by = _producers(widths, network)
    scores = _scores(made_by, model, network, rules)
    chosen = _kept(scores, rules, sparsity, {root: rows[0].label for root, rows in made_by.items()})
    _keep_projections(widths, scores, chosen)
    units = {row.name: len(columns) for root, columns in chosen.items() for row in made_by[root]}
    made = empty_like(model, model.name, _narrowed(model.input_and_layers, "", units))
    _take(widths, chosen, network.tensors(), made.network.tensors())
    if network.mask is not None:
        made.network.mask = np.ones_like(made.network.params)
        _take(widths, chosen, network.tensors(network.mask), made.network.tensors(made.network.mask))
    made.epochs_trained = model.epochs_trained
    made.compile_like(model)
    return made


def _producers(widths: Widths, network: Network) -> dict[int, list[Row]]:
    """Return the dense rows that make each of the widths that may change."""
    places = [i for i, row in enumerate(network.layers) if kind_of(row) is DENSE]
    rows = dict(zip(places, dense_rows(network), strict=True))
    return {root: [rows[place] for place in widths.widths[root].producers] for root in widths.free()}


def _scores(
    made_by: Mapping[int, Sequence[Row]], model: Sequential, network: Network, rules: Rules
) -> dict[int, Scores]:
    """Return the scores of the neurons that may go: of the weights that come into each."""
    rows = rules.rows(network)
    values = rules.criterion.scores(model, network, rows, rules.calibration)
    by_name = {row.name: score for row, score in zip(rows, values, strict=True)}
    scores = {}
    for root, producers in made_by.items():
        if all(row.name in by_name for row in producers):
            incoming = np.concatenate([by_name[row.name] for row in producers]).astype(np.float64)
            score = rules.criterion.combine(incoming, lambda values: values.mean(axis=0))
            filled = np.concatenate([row.kernel != 0 for row in producers]).any(axis=0)
            scores[root] = np.where(filled, score, -np.inf)
    if not scores:
        raise ValueError(
            f"{rules.owner}: there are no neurons to remove: those of the output, of sums with the input and of "
            "exempted layers stay"
        )
    return scores


def _kept(scores: Mapping[int, Scores], rules: Rules, sparsity: float, labels: Mapping[int, str]) -> dict[int, Indices]:
    """Choose the neurons of each width that stay."""
    groups = [list(scores)] if rules.scope == "global" else [[root] for root in scores]
    chosen: dict[int, Indices] = {}
    for group in groups:
        stays = kept(np.concatenate([scores[root] for root in group]), sparsity)
        parts = np.split(stays, np.cumsum([scores[root].size for root in group])[:-1])
        chosen |= {root: np.flatnonzero(part) for root, part in zip(group, parts, strict=True)}
    for root, columns in chosen.items():
        if not columns.size:
            raise ValueError(
                f"{rules.owner}: {labels[root]} would lose all of its {scores[root].size} neurons; take a lower "
                "sparsity or scope='layer', or exempt it"
            )
    return chosen


def _keep_projections(widths: Widths, scores: Mapping[int, Scores], chosen: dict[int, Indices]) -> None:
    """Let a block's input and output differ in width where they did: it has a projection then, and only then."""
    for name, axes in widths.axes.items():
        if name.endswith("/projection/kernel"):
            roots = [widths.root(width) for width, _ in axes]
            sizes = [len(chosen[root]) if root in chosen else widths.widths[root].size for root in roots]
            if sizes[0] == sizes[1]:
                root = next(root for root in reversed(roots) if root in chosen)
                gone = np.setdiff1d(np.arange(scores[root].size), chosen[root])
                best = gone[np.argsort(-scores[root][gone], kind="stable")[:1]]
                chosen[root] = np.sort(np.append(chosen[root], best))


def _narrowed(layers: Sequence[Layer], prefix: str, units: Mapping[str, int]) -> list[Layer]:
    """Return copies of layers, whose rows' names begin with ``prefix``, with other numbers of units."""
    made: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Composite):
            made.append(layer.with_layers(_narrowed(layer.layers, f"{prefix}{layer.name}/", units)))
            continue
        copied = layer.copy()
        if isinstance(copied, Dense):
            copied.units = units.get(prefix + layer.name, copied.units)
        made.append(copied)
    return made


def _take(
    widths: Widths,
    chosen: Mapping[int, Indices],
    source: Mapping[str, npt.NDArray[Any]],
    target: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Copy what stays of each tensor."""
    for name, view in target.items():
        view[...] = source[name][np.ix_(*widths.indices(name, chosen))] if name in widths.axes else source[name]
