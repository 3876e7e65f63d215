"""Attribution of a model's outputs to its inputs: permutation importance of columns, and gradients (saliency)."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, backends, metrics
from nbdense._tables import Shown, Table
from nbdense.backends.base import NOTHING, Data
from nbdense.inspection.plots import new_axes
from nbdense.network import set_delta_flags
from nbdense.training import phases, targets
from nbdense.training.evaluation import Tally, penalty, tally_data
from nbdense.training.state import Model

_BLOCK = 8192  # rows of the user's that are copied at a time
_BATCH = 256  # rows that are worked on at a time


@dataclass(frozen=True, repr=False)
class Importance(Shown):
    """Results of `importance`, under scikit-learn's names; shown, they are a table, the most important column first.

    Attributes
    ----------
    importances : ndarray, (columns, repeats), float64
        How much worse each shuffle made the metric: positive where the column matters.
    importances_mean, importances_std : ndarray, (columns,), float64
        Mean and (population) standard deviation over the repeats.
    baseline : float
        The metric on the data as they are.
    metric : str
        Its name.
    columns : tuple
        The columns' names, of a DataFrame; else their numbers.
    """

    importances: npt.NDArray[np.float64]
    baseline: float
    metric: str
    columns: tuple[Any, ...]

    @property
    def importances_mean(self) -> npt.NDArray[np.float64]:
        """Mean over the repeats."""
        return np.asarray(self.importances.mean(axis=1))

    @property
    def importances_std(self) -> npt.NDArray[np.float64]:
        """Standard deviation over the repeats."""
        return np.asarray(self.importances.std(axis=1))

    def _order(self) -> list[int]:
        """Return the columns' numbers, the most important first."""
        return [int(j) for j in np.argsort(-self.importances_mean, kind="stable")]

    def to_table(self) -> Table:
        mean, deviation = self.importances_mean, self.importances_std
        rows = [(str(self.columns[j]), f"{mean[j]:.4g}", f"{deviation[j]:.2g}") for j in self._order()]
        title = f"{self.metric} {self.baseline:.4g}; worse by, where a column is shuffled:"
        return Table(("column", "worse by", "+-"), rows, title)

    def plot(self, ax: Any = None, most: int = 30) -> Any:
        """Draw a bar a column, the most important on top, with the columns' names and the repeats' deviations.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure.
        most : int
            Columns to draw, at most.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax, drawn = new_axes(ax), self._order()[: _checks.positive_int("plot", "most", most)]
        places = np.arange(len(drawn))
        ax.barh(places, self.importances_mean[drawn], xerr=self.importances_std[drawn])
        ax.set_yticks(places, [str(self.columns[j]) for j in drawn])
        ax.invert_yaxis()
        ax.set_xlabel(f"{self.metric} worse by")
        return ax


def importance(
    model: Model,
    x: Any,
    y: Any,
    metric: str | metrics.Metric | None = None,
    repeats: int = 5,
    seed: int = 0,
    sample_weight: Any = None,
) -> Importance:
    """Measure permutation importance: how much worse the model gets when a column is shuffled over the rows.

    Breiman 2001, section 10, with the meaning of scikit-learn's ``permutation_importance``: baseline minus shuffled
    for a metric whose ``direction`` is "max" (accuracies), and shuffled minus baseline for the loss and for "min"
    (errors), so that positive always says that the column matters. Columns that say the same hide each other: the
    model reads the one where the other is shuffled.

    Parameters
    ----------
    model : Sequential
        Compiled; nothing of it is changed.
    x : array-like, (rows, columns)
        Read where it lies and never written to; a block of rows is copied at a time.
    y : array-like
        Targets, as for `evaluate`.
    metric : str or Metric, optional
        A metric, the name of one (as in the history, or in `nbdense.metrics`), or "loss"; by default the first metric
        that was compiled, or else the loss.
    repeats : int
        Shuffles of each column.
    seed : int
        Repeat r of column j takes the order ``numpy.random.default_rng([seed, j, r]).permutation(rows)``.
    sample_weight : array-like, (rows,), optional
        A weight for each row; it weighs losses, not metrics.

    Returns
    -------
    Importance

    Raises
    ------
    ValueError, TypeError
        For data that `evaluate` refuses, inputs of several axes, a metric that is unknown or has no ``direction``, or
        repeats below 1.
    """
    repeats = _checks.positive_int("importance", "repeats", repeats)
    if isinstance(seed, bool) or operator.index(seed) < 0:
        raise ValueError(f"importance: seed must be a whole number of at least 0, got {seed!r}")
    scorer = _Scorer(model, x, y, metric, sample_weight)
    rows, columns = scorer.x.shape
    sign = 1.0 if scorer.direction == "min" else -1.0
    baseline = scorer.score()
    importances = np.empty((columns, repeats))
    for j in range(columns):
        for r in range(repeats):
            order = np.random.default_rng([seed, j, r]).permutation(rows)
            importances[j, r] = sign * (scorer.score(j, scorer.x[order, j]) - baseline)
    return Importance(importances, baseline, scorer.name, tuple(getattr(x, "columns", range(columns))))


class _Scorer:
    """One metric of a model on a data set, with a column of the inputs replaced or not."""

    def __init__(self, model: Model, x: Any, y: Any, metric: Any, sample_weight: Any) -> None:
        state = model.train_state
        objective, compiled = state.objective()
        _, loss = state.compiled()
        network = self._network = state.network
        if len(network.input_shape) != 1:
            raise ValueError(f"importance: a row of inputs must have one axis; the model's have {network.input_shape}")
        self.x, self._y, self._weights = state.arrays(x, y, sample_weight)
        targets.as_sources(self.x, self._y, self._weights, network.dtype)  # refuses NaN and infinity
        chosen = compiled[0] if metric is None and compiled else None
        if metric not in (None, "loss"):
            chosen = next((known for known in compiled if known.name == metric), None)
            chosen = chosen or metrics.get(metric, loss, network.output_shape[-1])
        self.name = "loss" if chosen is None else chosen.name
        self.direction = "min" if chosen is None else chosen.direction
        if not self.direction:
            raise ValueError(
                f"importance: whether {self.name!r} is better when it is larger is not known; give the metric a "
                "direction, as in FunctionMetric(function, direction='max'), or 'min'"
            )
        self._metrics = [] if chosen is None else [chosen]
        objective = dataclasses.replace(objective, metrics=tuple(m.code for m in self._metrics))
        batch, nothing = min(_BATCH, len(self.x)), np.zeros((1, 0), network.dtype)
        self._workspace = backends.current().workspace(network, objective, batch, nothing)
        self._penalty = penalty(network)

    def score(self, column: int | None = None, values: npt.NDArray[Any] | None = None) -> float:
        tally = Tally(self._metrics, self._network.positions_out)
        for first in range(0, len(self.x), _BLOCK):
            last = min(first + _BLOCK, len(self.x))
            block = _checks.matrix_of(self.x[first:last], self._network.dtype)
            if column is not None and values is not None:
                block[:, column] = values[first:last]
            weights = _checks.no_source() if self._weights is None else _checks.source(self._weights[first:last])
            targets_of_block = _checks.source(self._y[first:last])
            tally_data(tally, self._workspace, Data(_checks.source(block), targets_of_block, weights, len(block)))
        results = tally.results()
        results["loss"] += self._penalty
        value = results[self.name]
        if np.ndim(value):
            raise ValueError(
                f"importance: metric {self.name!r} has {np.size(value)} numbers; give one with a single number, such "
                "as F1Score(average='macro')"
            )
        return float(value)


def saliency(model: Model, x: Any, output: int | None = None) -> npt.NDArray[Any]:
    """Return the size of an output's derivative with respect to each input (Simonyan et al. 2014, section 3).

    The output is what `predict` gives: behind a softmax, a class's probability, where that paper takes its logit. A
    model that is sure of a class has flat probabilities; `Sequential.upto` a linear layer gives logits. Dropout is
    off, and batch normalisation uses its running statistics.

    Parameters
    ----------
    model : Sequential
        Nothing of it is changed, its gradients included.
    x : array-like, (rows, ..., n_in)
        Inputs.
    output : int, optional
        A column of the outputs, from 0; by default each row's largest. Where a row of data has several rows of
        outputs, the chosen ones are added up.

    Returns
    -------
    ndarray, of the shape of x and the model's dtype

    Raises
    ------
    ValueError, TypeError
        For inputs that `predict` refuses, or an output that there is not.
    """
    network, flat = model.network, model.train_state.inputs(x)
    n_out = network.output_shape[-1]
    if output is not None and (isinstance(output, bool) or not 0 <= operator.index(output) < n_out):
        raise ValueError(f"saliency: output must be a column in 0..{n_out - 1}, got {output!r}")
    rows = flat.shape[0]
    result = np.empty((rows, network.n_in), network.dtype)
    layers = network.kept_inference()
    set_delta_flags(layers, network.segments, input_learns=True)
    batch, no_state = max(1, min(rows, _BATCH)), np.zeros((1, 0), network.dtype)
    workspace = backends.current().workspace(network, NOTHING, batch, no_state)
    forward, backward = phases.forward(layers), phases.backward(layers)[:-1]  # without the parameters' gradients
    nothing = _checks.no_source()
    for first in range(0, rows, _BATCH):
        count = min(_BATCH, rows - first)
        source = _checks.source(flat[first : first + count])
        workspace.run(forward, Data(source, nothing, nothing, count), layers=layers)
        outputs = workspace.tensor(layers[-1], "output", count)
        chosen = outputs.argmax(axis=2) if output is None else np.full(outputs.shape[:2], operator.index(output))
        workspace.set_deltas(layers[-1], (np.arange(n_out) == np.expand_dims(chosen, -1)).astype(network.dtype))
        workspace.run(backward, Data(nothing, nothing, nothing, count), layers=layers)
        slopes = workspace.tensor(layers[0], "input", count, deltas=True)
        result[first : first + count] = np.abs(slopes.reshape(count, -1))
    return result.reshape(rows, *network.input_shape)
