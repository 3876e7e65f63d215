"""Rows of data as estimators hand them on, dense or sparse: never all of a sparse matrix are dense at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nbdense.training.sparse_rows import is_sparse, pieces

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


def outputs_of(model: Any, X: Any) -> Floats:
    """Return a model's outputs of rows; it may be one that takes no sparse matrix."""
    if is_sparse(X):
        return np.concatenate([model.predict(piece) for piece in pieces(X, X.dtype, X.shape[0])])
    outputs: Floats = model.predict(X)
    return outputs
