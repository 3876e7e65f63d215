"""Magnitude pruning: the smallest weights become zeros that training leaves at zero.

Method: Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (2015), section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import DENSE, rows_of
from nbdense.network import Network, Row, held_network


def prune(model: Any, sparsity: float, *, structure: str = "unstructured", scope: str = "global") -> Any:
    """Set the smallest weights to zero, for good: what trains the new model further holds them there.

    Parameters
    ----------
    model : Sequential or Network
        The trained model; not changed.
    sparsity : float
        The share of kernel weights to remove, in [0, 1). Biases are kept. What was pruned before counts.
    structure : str
        "unstructured": each weight by itself.
    scope : str
        "global" ranks the weights of all kernels together; "layer" removes the share from each kernel.

    Returns
    -------
    Sequential or Network
        A new one with ``network.mask`` set. Of weights of equal magnitude the first are kept. `set_weights` leaves the
        pruned ones at zero too, and warns; ``network.mask = None`` lets all weights learn and be set again. What is
        written to the views of `Sequential.parameters` is not looked at.

    Raises
    ------
    ValueError
        For an option that there is not, a sparsity outside [0, 1), or weights that are not finite.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((4,)), Dense(10), Dense(2)])
    >>> pruned = prune(model, 0.5)
    >>> sparsity_of(pruned.network)
    0.5
    """
    for option, value, available in [
        ("structure", structure, ("unstructured",)),
        ("scope", scope, ("global", "layer")),
    ]:
        if value not in available:
            raise ValueError(f"prune: {option} must be {' or '.join(map(repr, available))}, got {value!r}")
    share = float(sparsity) if hasattr(sparsity, "__float__") else np.nan
    if not 0 <= share < 1:
        raise ValueError(f"prune: sparsity must lie in [0, 1), got {sparsity!r}")
    source: Network = held_network(model)
    if not isinstance(source, Network):
        raise ValueError(f"prune: expected a built model or a Network, got {type(model).__name__}")
    network = source.copy()
    rows = _dense(network)
    if not rows:
        raise ValueError("prune: the model has no Dense layer, and only their kernels are pruned")
    for row in rows:
        if not np.isfinite(row.kernel).all():
            raise ValueError(f"prune: {row.label}: its weights are not all finite")
    sizes = [np.abs(row.kernel).ravel() for row in rows]
    if scope == "global":
        keeps = np.split(_kept(np.concatenate(sizes), share), np.cumsum([s.size for s in sizes])[:-1])
    else:
        keeps = [_kept(size, share) for size in sizes]
    mask = np.ones_like(network.params)
    for masked, row, keep in zip(_kernels(network, mask), rows, keeps, strict=True):
        masked[...] = keep.reshape(masked.shape)
        row.kernel[~keep.reshape(masked.shape)] = 0  # a product with the mask would leave negative zeros
    network.mask = mask
    return network if model is source else model.with_network(network)


def sparsity_of(network: Network) -> float:
    """Return the share of kernel weights that are zero.

    Parameters
    ----------
    network : Network
        Pruned or not.
    """
    kernels = [row.kernel for row in _dense(network)]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def _kept(sizes: npt.NDArray[Any], sparsity: float) -> npt.NDArray[np.bool_]:
    """Mark all but the round(sparsity * size) smallest; of equals the first are kept."""
    kept = np.zeros(sizes.size, np.bool_)
    kept[np.argsort(-sizes, kind="stable")[: sizes.size - round(sparsity * sizes.size)]] = True
    return kept


def _dense(network: Network) -> list[Row]:
    """Return the rows that have a kernel; a norm's gamma is none."""
    return [row for row in network.rows() if row.kind is DENSE]


def _kernels(network: Network, vector: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return views of a flat vector like the parameters, one for each dense row's kernel."""
    at = {parameter.offset: parameter for parameter in network.parameters}
    dense = rows_of(network.layers, DENSE)
    return [network.tensor(at[int(row["kernel"])], vector) for row in dense]
