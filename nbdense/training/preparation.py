"""Preparations of a fit, made once before its first epoch: checked data, the objective, the memory of its runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nbdense import _checks
from nbdense.backends.base import Workspace
from nbdense.metrics import Metric
from nbdense.training.evaluation import Room
from nbdense.training.feeding import Feed, Stream, feed_of, opened
from nbdense.training.sparse_rows import readable
from nbdense.training.state import TrainState


@dataclass(frozen=True)
class Validation:
    """A data set that is evaluated after epochs, the memory for that, and after which epochs."""

    feed: Feed
    room: Room
    epochs: int | Collection[int] = 1

    def is_due(self, epoch: int) -> bool:
        """Tell whether it is evaluated after the ``epoch``-th epoch, counted from 1."""
        return epoch % self.epochs == 0 if isinstance(self.epochs, int) else epoch in self.epochs


@dataclass(frozen=True)
class Fit:
    """Everything that the epochs of a fit share.

    Attributes
    ----------
    state : TrainState
    feed : Feed
        What its steps read.
    room : Room
        Memory for them.
    metrics : list of Metric
        Reported beside the loss.
    validation : Validation or None
    shuffle : bool
        Whether each epoch has its own order of rows.
    """

    state: TrainState
    feed: Feed
    room: Room
    metrics: list[Metric]
    validation: Validation | None
    shuffle: bool

    @property
    def steps(self) -> int | None:
        """Steps in an epoch; None where only its end will tell."""
        return self.feed.steps

    @property
    def workspace(self) -> Workspace:
        """Memory for the present batch."""
        return self.room.workspace(self.feed.batch)


def prepare(
    state: TrainState,
    x: Any,
    y: Any,
    *,
    batch: int,
    steps: int | None,
    validation_batch: int,
    validation_split: float,
    validation_data: Any,
    validation_steps: int | None,
    validation_freq: Any,
    shuffle: bool,
    class_weight: Mapping[int, float] | str | None,
    sample_weight: Any,
) -> Fit:
    """Check the data of a fit, and allocate all that its epochs need.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled; nothing of it is changed.
    x, y : array-like
        Or a sparse matrix and an array, or a Stream of batches and None.
    batch : int
        Rows a step, at most.
    steps : int, optional
        Steps of an epoch.
    validation_batch : int
        Rows that are evaluated at a time, at most.
    validation_split : float
    validation_data : sequence or iterable, optional
    validation_steps : int, optional
        Steps of an evaluation.
    validation_freq : int or collection of int
    shuffle : bool
    class_weight : mapping or str, optional
    sample_weight : array-like, optional
        These and ``x`` and ``y`` are those of ``Sequential.fit``.
    """
    held_out: Feed | None = None
    if validation_data is not None:
        given = opened(validation_data)
        parts = validation_data if isinstance(validation_data, list | tuple) else (given, None)
        if len(parts) not in (2, 3) or (parts[1] is None and not isinstance(given, Stream)):
            got = f"{len(parts)} parts" if parts is validation_data else type(validation_data).__name__
            raise ValueError(
                f"fit: validation_data must be (x, y) or (x, y, sample_weight), or an iterable of batches, got {got}"
            )
        inputs, outputs, weights = (*parts, None)[:3]
        try:
            held_out = feed_of(state, inputs, outputs, weights, validation_batch, validation_steps)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"validation_data: {error}") from error
    elif validation_split:
        if isinstance(x, Stream):
            raise ValueError("fit: validation_split needs arrays; give validation_data beside an iterable")
        x, y, sample_weight, rest = split(x, y, sample_weight, validation_split)
        held_out = feed_of(state, *rest, validation_batch, validation_steps)
    feed = feed_of(state, x, y, sample_weight, batch, steps, class_weight, shuffle)
    objective, metrics = state.objective()
    validation = None
    if held_out is not None:
        validation = Validation(held_out, Room(state, objective), _frequency(validation_freq))
        validation.room.workspace(held_out.batch)
    fit = Fit(state, feed, Room(state, objective), metrics, validation, shuffle)
    fit.room.workspace(feed.batch)
    return fit


def _frequency(value: Any) -> int | Collection[int]:
    """Return every how many epochs there is an evaluation, or after which."""
    if isinstance(value, Collection) and not isinstance(value, str):
        return [_checks.positive_int("fit", "validation_freq", epoch) for epoch in value]
    return _checks.positive_int("fit", "validation_freq", value)


def split(x: Any, y: Any, sample_weight: Any, share: float) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
    """Hold out the last ``share`` of rows, as Keras does."""
    share = _checks.finite_number("fit", "validation_split", share, 0, 1, ends="[)")
    x, y = readable("x", x), _checks.array_of("y", y)
    rows = x.shape[0]
    cut = int(rows * (1.0 - share))
    if cut == 0 or cut == rows:
        part = "training" if cut == 0 else "validation"
        raise ValueError(f"fit: validation_split={share} of {rows} rows leaves none for {part}")
    weights = None if sample_weight is None else _checks.array_of("sample_weight", sample_weight)
    ahead, behind = (None, None) if weights is None else (weights[:cut], weights[cut:])
    return x[:cut], y[:cut], ahead, (x[cut:], y[cut:], behind)
