"""Rows of data as estimators hand them on, dense or sparse: never all of a sparse matrix are dense at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nbdense.training.sparse_rows import ELEMENTS, SparseRows

Floats = npt.NDArray[np.floating[Any]]


class Rows(NamedTuple):
    """Checked rows.

    Attributes
    ----------
    X : ndarray or CSR matrix, (rows, columns)
        Their features.
    targets : ndarray
        Class numbers, (rows,); or labels or values, (rows, outputs).
    weights : ndarray or None
        Their weights; None where all weigh alike.
    """

    X: Any
    targets: npt.NDArray[Any]
    weights: Floats | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])


def is_sparse(X: Any) -> bool:
    """Tell whether rows are one of scipy's sparse matrices."""
    return hasattr(X, "tocsr")


def readable(X: Any) -> Any:
    """Return rows as an array, or as a CSR matrix."""
    return X.tocsr() if is_sparse(X) else np.asarray(X)


def for_fit(X: Any) -> Any:
    """Return rows as `Sequential.fit` and `evaluate` take them."""
    return SparseRows(X) if is_sparse(X) else X


def dense(X: Any) -> npt.NDArray[Any]:
    """Return rows as an array, those of a sparse matrix all at once."""
    return np.asarray(X.toarray() if is_sparse(X) else X)


def outputs_of(model: Any, X: Any) -> Floats:
    """Return a model's outputs of rows."""
    if not is_sparse(X):
        outputs: Floats = model.predict(X)
        return outputs
    rows, columns = X.shape
    at_once = max(1, ELEMENTS // max(1, columns))
    return np.concatenate([model.predict(X[first : first + at_once].toarray()) for first in range(0, rows, at_once)])
