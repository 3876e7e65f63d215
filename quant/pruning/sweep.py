"""sparsity_sweep(): how much a model may lose of its weights before it gets worse."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from nbdense._tables import Shown, Table
from nbdense.inspection.plots import new_axes
from nbdense.quant.conversion.budget import score_of
from nbdense.quant.pruning.one_shot import prune
from nbdense.quant.pruning.report import pruning_report
from nbdense.quant.pruning.rules import share_of
from nbdense.training.progress import progress_bar

SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True, repr=False)
class SparsitySweep(Shown):
    """Scores against sparsity; printed, it is a table.

    Attributes
    ----------
    sparsities : list of float
        Shares of weights or neurons that were removed.
    scores : list of float
        Scores of the pruned models; more is better.
    parameters : list of int
        Parameters of these that are not zero, biases counted.
    models : list of Sequential
        The models, if they were to be kept.
    """

    sparsities: list[float]
    scores: list[float]
    parameters: list[int]
    models: list[Any] = field(default_factory=list, repr=False)

    def table(self) -> list[tuple[str, ...]]:
        """Return rows of cells, of which the first is the head."""
        rows = zip(self.sparsities, self.parameters, self.scores, strict=True)
        cells = [(f"{sparsity:.2%}", f"{count:,}", f"{score:.4f}") for sparsity, count, score in rows]
        return [("sparsity", "parameters", "score"), *cells]

    def to_table(self) -> Table:
        head, *rows = self.table()
        return Table(head, rows, left=2)

    def plot(self, ax: Any = None) -> Any:
        """Draw scores against sparsity.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(ax)
        ax.plot([100 * sparsity for sparsity in self.sparsities], self.scores, marker="o")
        ax.set_xlabel("sparsity (%)")
        ax.set_ylabel("score")
        return ax


def sparsity_sweep(
    model: Any,
    evaluate: Any,
    sparsities: Iterable[float] = SPARSITIES,
    *,
    fine_tune: Callable[[Any], Any] | None = None,
    keep_models: bool = False,
    verbose: int | str = "auto",
    **options: Any,
) -> SparsitySweep:
    """Prune a model to several sparsities, each time from the start, and score what comes out.

    Parameters
    ----------
    model : Sequential
        The trained model; not changed.
    evaluate : (x, y), or callable
        An evaluation set, or a function of a model that returns a score, as for `quantize`.
    sparsities : iterable of float
        Shares to remove, in [0, 1).
    fine_tune : callable, optional
        Called with each pruned model, which is compiled as ``model`` is, to train it further.
    keep_models : bool
        Whether the pruned models are kept, in ``models``.
    verbose : {"auto", 0, 1}
        1 (auto) draws a progress bar, 0 is silent.
    **options
        Options of `prune`.

    Returns
    -------
    SparsitySweep

    Raises
    ------
    ValueError
        As `prune` does, before anything is pruned where a sparsity is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import nbdense as nb
    >>> model = nb.Sequential([nb.Input((4,)), nb.Dense(10), nb.Dense(3)])
    >>> x, y = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 3
    >>> sweep = sparsity_sweep(model, (x, y), [0.5, 0.9], verbose=0)
    >>> sweep.parameters
    [48, 20]
    """
    if verbose not in ("auto", 0, 1):
        raise ValueError(f"sparsity_sweep: verbose must be 'auto', 0 or 1, got {verbose!r}")
    shares = [share_of("sparsity_sweep", "each of sparsities", sparsity) for sparsity in sparsities]
    score = score_of(evaluate, "sparsity_sweep")
    sweep = SparsitySweep(shares, [], [])
    with progress_bar(shares, desc="sparsity", disable=verbose == 0) as bar:
        for share in bar:
            bar.set_postfix(sparsity=f"{share:.2%}")
            pruned = prune(model, share, **options)
            if fine_tune is not None:
                fine_tune(pruned)
            sweep.scores.append(score(pruned))
            sweep.parameters.append(pruning_report(pruned, form="dict")["model"]["kept_parameters"])
            if keep_models:
                sweep.models.append(pruned)
    return sweep
