"""Confusion matrices: which classes a model takes for which, with their names, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._tables import Shown, Table
from nbdense.inspection.plots import label_places, new_axes
from nbdense.metrics.collected import decision_threshold, predicted_classes


class Predictor(Protocol):
    """Protocol of a model that gives probabilities, or logits, of classes."""

    def predict(self, x: Any) -> npt.NDArray[Any]:
        """Return a row of outputs for each row."""


@dataclass(frozen=True, repr=False)
class ConfusionMatrix(Shown):
    """Counts of rows by their class and the one that a model takes them for; shown, they are a table.

    Attributes
    ----------
    counts : ndarray of int, (classes, classes)
        Rows of class i that are taken for class j.
    class_names : tuple of str
        The classes' names.
    """

    counts: npt.NDArray[np.int64]
    class_names: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of rows that are taken for what they are."""
        return float(np.trace(self.counts) / max(1, self.counts.sum()))

    def to_table(self) -> Table:
        rows = [
            (name, *(f"{count:,}" for count in counts), f"{counts[i] / counts.sum():.2%}" if counts.any() else "-")
            for i, (name, counts) in enumerate(zip(self.class_names, self.counts, strict=True))
        ]
        head = ("class", *(f"as {name}" for name in self.class_names), "right")
        return Table(head, rows, f"{self.accuracy:.2%} of {self.counts.sum():,} rows are right")

    def plot(self, ax: Any = None) -> Any:
        """Draw the counts as shades, with the classes' names at both axes.

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
        ax.imshow(self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(self.counts):
            ax.text(column, row, f"{count:,}", ha="center", va="center")
        label_places(ax, self.class_names)
        ax.set_yticks(range(len(self.class_names)), self.class_names)
        ax.set_xlabel("taken for")
        ax.set_ylabel("class")
        return ax


def confusion_matrix(model: Predictor, x: Any, y: Any, class_names: Sequence[Any] | None = None) -> ConfusionMatrix:
    """Count which classes a model takes rows for: the largest output's, or of one output 1 from a threshold on.

    The threshold is 0.5, or 0 where the model's loss takes logits or is a hinge.

    Parameters
    ----------
    model : Sequential, QuantizedModel or SparseModel
        A classifier.
    x : array-like, (rows, ...)
        As for ``predict``.
    y : array-like
        Class numbers, (rows,), or one-hot rows.
    class_names : sequence, optional
        Names of the classes; by default the model's ``class_names``, where it has them, or their numbers.

    Returns
    -------
    ConfusionMatrix

    Raises
    ------
    ValueError
        If the targets are no such classes, or the names are not as many.

    Examples
    --------
    >>> class Sign:
    ...     def predict(self, x):
    ...         return (np.asarray(x)[:, :1] > 0).astype(float)
    >>> print(confusion_matrix(Sign(), [[1.0], [-1.0], [2.0]], [1, 0, 0], ["minus", "plus"]))
    66.67% of 3 rows are right
    class  as minus  as plus    right
    minus         1        1   50.00%
    plus          0        1  100.00%
    """
    outputs = np.asarray(model.predict(x))
    if outputs.ndim < 2:
        raise ValueError(
            f"confusion_matrix: {type(model).__name__}.predict must give a row of outputs for each row, got shape "
            f"{outputs.shape}; of labels make sklearn.metrics.confusion_matrix, of an estimator's model_ this"
        )
    columns = outputs.reshape(len(outputs), -1)
    taken = predicted_classes(columns, decision_threshold(model), at_threshold=1)
    targets = _checks.numbers_of("confusion_matrix: y", y)
    targets = targets.reshape(len(targets), -1)
    targets = targets.argmax(axis=1) if targets.shape[1] > 1 else targets[:, 0]
    count = max(2, columns.shape[1])
    if len(targets) != len(taken) or not np.isin(targets, np.arange(count)).all():
        raise ValueError(
            f"confusion_matrix: y must be {len(taken)} class numbers in 0..{count - 1}, or one-hot rows of these, got "
            f"shape {np.shape(y)}"
        )
    names = getattr(model, "class_names", None) if class_names is None else class_names
    names = range(count) if names is None else names
    if len(names) != count:
        raise ValueError(f"confusion_matrix: class_names must be {count} names, got {len(names)}")
    counts = np.zeros((count, count), np.int64)
    np.add.at(counts, (targets.astype(np.int64), taken), 1)
    return ConfusionMatrix(counts, tuple(map(str, names)))
