"""Preparations of a fit, made once before its first epoch: checked data, the objective, the memory of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbdense import _checks
from nbdense.metrics import Metric
from nbdense.training.state import TrainState
from nbdense.training.workspace import Data, Workspace


@dataclass(frozen=True)
class Validation:
    """A data set that is evaluated after each epoch, and the memory for that."""

    data: Data
    workspace: Workspace


@dataclass(frozen=True)
class Fit:
    """Everything that the epochs of a fit share.

    Attributes
    ----------
    state : TrainState
    data : Data
        To learn from.
    workspace : Workspace
        For batches of it.
    metrics : list of Metric
        Reported beside the loss.
    validation : Validation or None
    shuffle : bool
        Whether each epoch has its own order of rows.
    """

    state: TrainState
    data: Data
    workspace: Workspace
    metrics: list[Metric]
    validation: Validation | None
    shuffle: bool

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-self.data.rows // self.workspace.batch)


def prepare(
    state: TrainState,
    x: Any,
    y: Any,
    *,
    batch: int,
    validation_batch: int,
    validation_split: float,
    validation_data: Sequence[Any] | None,
    shuffle: bool,
    class_weight: Mapping[int, float] | str | None,
    sample_weight: Any,
) -> Fit:
    """Check the data of a fit, and allocate all that its epochs need.

    Parameters
    ----------
    state : TrainState
        Of a model that is built and compiled; nothing of it is changed.
    x, y : array-like
    batch, validation_batch : int
        Rows a step, and rows that are evaluated at a time, at most.
    validation_split : float
    validation_data : sequence, optional
    shuffle : bool
    class_weight : mapping or str, optional
    sample_weight : array-like, optional
        These and ``x`` and ``y`` are those of ``Sequential.fit``.
    """
    held_out: Data | None = None
    if validation_data is not None:
        parts = validation_data if isinstance(validation_data, list | tuple) else ()
        if len(parts) not in (2, 3):
            got = f"{len(parts)} parts" if parts else type(validation_data).__name__
            raise ValueError(f"fit: validation_data must be (x, y) or (x, y, sample_weight), got {got}")
        held_out = state.data(*parts)
    elif validation_split:
        x, y, sample_weight, rest = split(x, y, sample_weight, validation_split)
        held_out = state.data(*rest)
    data = state.data(x, y, sample_weight, class_weight)
    objective, metrics = state.objective()

    def workspace(rows: int) -> Workspace:
        return Workspace(state.network, objective, rows, state.vectors)

    validation = None
    if held_out is not None:
        validation = Validation(held_out, workspace(min(held_out.rows, validation_batch)))
    return Fit(state, data, workspace(min(batch, data.rows)), metrics, validation, shuffle)


def split(x: Any, y: Any, sample_weight: Any, share: float) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
    """Hold out the last ``share`` of rows, as Keras does."""
    share = _checks.finite_number("fit", "validation_split", share, 0, 1, ends="[)")
    x, y = _checks.array_of("x", x), _checks.array_of("y", y)
    rows = len(x)
    cut = int(rows * (1.0 - share))
    if cut == 0 or cut == rows:
        part = "training" if cut == 0 else "validation"
        raise ValueError(f"fit: validation_split={share} of {rows} rows leaves none for {part}")
    weights = None if sample_weight is None else _checks.array_of("sample_weight", sample_weight)
    ahead, behind = (None, None) if weights is None else (weights[:cut], weights[cut:])
    return x[:cut], y[:cut], ahead, (x[cut:], y[cut:], behind)
