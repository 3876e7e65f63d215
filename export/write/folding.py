"""Batch normalisations as files have them: which are folded into dense rows, and tensors that float32 can hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbdense.engine.tables import FROZEN_NORM
from nbdense.export.graph.builder import finite_float32
from nbdense.network import Network, Row, folding


def inference_rows(network: Network, fold: bool) -> list[Row]:
    """Return the rows of inference; with ``fold``, without the batch normalisations that others can take over.

    Parameters
    ----------
    network : Network
        The network; not changed.
    fold : bool
        Whether to fold.

    Raises
    ------
    ValueError
        If a batch normalisation's tensors are not finite in float32, or a variance is not above zero; it is named.
    """
    rows = list(network.rows())
    if not fold:
        return rows
    for row in rows:
        if row.kind == FROZEN_NORM:
            norm_tensors(row)  # refuses
    return folding.fold_rows(rows)


def norm_tensors(row: Row) -> dict[str, npt.NDArray[np.floating]]:
    """Return gamma, beta, mean and variance of a batch normalisation, ones and zeros where it has none.

    Parameters
    ----------
    row : Row
        A row of kind FROZEN_NORM.

    Raises
    ------
    ValueError
        If one is not finite in float32, or a variance is not above zero, epsilon included.
    """
    tensors = folding.norm_tensors(row)
    for name, value in tensors.items():
        finite_float32(value, row.label, name)
    if (tensors["variance"].astype(np.float64) + row.alpha <= 0).any():
        raise ValueError(f"{row.label}: its moving variance plus epsilon is not above zero")
    return tensors


def scale_and_shift(row: Row) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what a batch normalisation multiplies each column by and then adds to it, in float64.

    Parameters
    ----------
    row : Row
        A row of kind FROZEN_NORM.
    """
    return folding.scale_and_shift(**norm_tensors(row), epsilon=row.alpha)


def is_far_from_zero(row: Row) -> bool:
    """Tell whether x scale + shift would lose digits: a mean is many deviations away from zero, as in unscaled data.

    Parameters
    ----------
    row : Row
        A row of kind FROZEN_NORM.
    """
    tensors = norm_tensors(row)
    return folding.is_far_from_zero(tensors["mean"], tensors["variance"], row.alpha)
