"""The rows that files have: those of inference, less the batch normalisations that dense rows can take over."""

from __future__ import annotations

from nbdense.engine.rows import FROZEN_NORM
from nbdense.layers.batch_normalization import finite_tensors
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
        if row.kind is FROZEN_NORM:
            finite_tensors(row)  # refuses
    return folding.fold_rows(rows)
