"""Batch normalisation folded into the dense rows beside it, at the level of rows: inside Residual blocks too.

By its running statistics a batch normalisation is x scale + shift, column by column. A linear dense row before it takes
that into its kernel and bias (Jacob et al. 2018, section 3.2), if nothing else reads what the row gives; dense rows
behind it, into theirs: (x scale + shift) W + b = x (scale W) + (shift W + b), if nothing else reads what the norm
gives. All is computed in float64.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS
from nbdense.engine.tables import ADD, DENSE, FROZEN_NORM
from nbdense.export.graph.builder import finite_float32
from nbdense.network import Network, Row, folding


def inference_rows(network: Network, fold: bool) -> list[Row]:
    """The rows of inference; with ``fold``, without the batch normalisations that others can take over.

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
    for norm in [row for row in rows if row.kind == FROZEN_NORM and fold]:
        rows = _without(rows, norm)
    return rows


def reads(row: Row) -> tuple[int, ...]:
    """The buffers that a row reads.

    Parameters
    ----------
    row : Row
        The row.
    """
    return (row.input, row.second) if row.kind == ADD else (row.input,)


def norm_tensors(row: Row) -> dict[str, npt.NDArray[np.floating]]:
    """Gamma, beta, mean and variance of a batch normalisation, those that there are not as ones and zeros.

    Parameters
    ----------
    row : Row
        Of kind FROZEN_NORM.

    Raises
    ------
    ValueError
        If one is not finite in float32, or a variance is not above zero, epsilon included.
    """
    assert row.mean is not None and row.variance is not None
    tensors = {
        "gamma": row.kernel if row.kernel.size else np.ones(row.n_out),
        "beta": np.zeros(row.n_out) if row.bias is None else row.bias,
        "mean": row.mean,
        "variance": row.variance,
    }
    for what, value in tensors.items():
        finite_float32(value, row.label, what)
    if (row.variance.astype(np.float64) + row.alpha <= 0).any():
        raise ValueError(f"{row.label}: its moving variance plus epsilon is not above zero")
    return tensors


def scale_and_shift(row: Row) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What a batch normalisation multiplies each column by and then adds to it, in float64.

    Parameters
    ----------
    row : Row
        Of kind FROZEN_NORM.
    """
    return folding.scale_and_shift(**norm_tensors(row), epsilon=row.alpha)


def is_far_from_zero(row: Row) -> bool:
    """Whether x scale + shift would lose digits: a mean is many deviations away from zero, as in unscaled data.

    Parameters
    ----------
    row : Row
        Of kind FROZEN_NORM.
    """
    tensors = norm_tensors(row)
    return folding.is_far_from_zero(tensors["mean"], tensors["variance"], row.alpha)


def _without(rows: list[Row], norm: Row) -> list[Row]:
    """The rows less that norm; as they are if none can take it over, or digits would go."""
    changed: dict[int, Row] = {}  # by index
    before = next((row for row in rows if row.output == norm.input), None)
    behind = [row for row in rows if norm.output in reads(row)]
    if before is not None and _is_linear(before) and sum(norm.input in reads(row) for row in rows) == 1:
        changed = {before.index: _into(before, norm)}
    elif behind and all(row.kind == DENSE for row in behind) and norm.index != rows[-1].index:
        if not is_far_from_zero(norm):
            changed = {row.index: _from(row, norm) for row in behind}
    if not changed:
        return rows
    return [changed.get(row.index, row) for row in rows if row.index != norm.index]


def _is_linear(row: Row) -> bool:
    return row.kind == DENSE and row.activation.code == ACTIVATIONS["linear"].code


def _into(dense: Row, norm: Row) -> Row:
    """The dense row before a norm, with what the norm does."""
    kernel, bias = folding.into_layer_before(dense.kernel, dense.bias, *scale_and_shift(norm))
    return dataclasses.replace(dense, kernel=kernel, bias=bias, output=norm.output)


def _from(dense: Row, norm: Row) -> Row:
    """A dense row behind a norm, with what the norm does."""
    kernel, bias = folding.into_layer_behind(dense.kernel, dense.bias, *scale_and_shift(norm))
    return dataclasses.replace(dense, kernel=kernel, bias=bias, input=norm.input)
