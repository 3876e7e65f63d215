"""Feeds: what the steps of an epoch read, rows of arrays or batches that an iterable yields."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._warn import warn
from nbdense.backends.base import Data
from nbdense.training.sparse_rows import dense_rows, epoch_order, is_sparse, readable, rows_at_once
from nbdense.training.state import TrainState

Steps = tuple[Data, int, int]  # a data set, the number of its first batch that is wanted, and how many


class Feed(Protocol):
    """Protocol of what an epoch's steps are taken from.

    Attributes
    ----------
    steps : int or None
        Steps in an epoch; None where only its end will tell.
    batch : int
        Rows in a step, at most.
    order : int
        Number of the epoch in which the present pass over the rows began: their order depends on it.
    has_order : bool
        Whether the rows have an order already, which is theirs.
    """

    steps: int | None
    batch: int
    order: int
    has_order: bool

    def begin(self, epoch: int) -> bool:
        """Begin an epoch, the ``epoch``-th of all that the model has been trained; False where nothing is left."""

    def take(self, first: int, count: int) -> Steps | None:
        """Return ``count`` steps of the epoch, from its step ``first`` on, or fewer; None behind the last."""


class RowsFeed:
    """The rows of a data set, batch by batch, in passes that may be longer than an epoch.

    Parameters
    ----------
    rows : int
        How many there are.
    batch : int
        Rows in a step.
    steps : int, optional
        Steps in an epoch, where it is not the whole data set; the next one goes on behind them.
    """

    has_order = False

    def __init__(self, rows: int, batch: int, steps: int | None = None) -> None:
        self.batch = min(batch, rows)
        self._whole = -(-rows // self.batch)
        self._next, self._first, self._part, self.order = 0, 0, steps, 0
        self.steps: int | None = self._whole if steps is None else steps

    def begin(self, epoch: int) -> bool:
        """Begin an epoch: a new pass over the rows, or the next part of one that is not at its end."""
        goes_on = self._part is not None and 0 < self._next < self._whole
        self._first, self.order = (self._next, self.order) if goes_on else (0, epoch)
        return True

    def take(self, first: int, count: int) -> Steps | None:
        """Return steps, or None behind the last."""
        assert self.steps is not None
        at = self._first + first
        count = min(count, self.steps - first, self._whole - at)
        taken = self._steps_at(at, count) if count > 0 else None
        self._next = at + (0 if taken is None else taken[2])
        if taken is None and first < self.steps:
            _warn_of_end(self.steps)
        return taken

    def _steps_at(self, at: int, count: int) -> Steps:
        """Return steps of the pass from its batch ``at`` on: ``count`` of them, or fewer."""
        raise NotImplementedError


class ArrayFeed(RowsFeed):
    """The rows of arrays, which the engine gathers in an epoch's order.

    Parameters
    ----------
    data : Data
        The data set.
    batch, steps : int
        As for `RowsFeed`.
    """

    def __init__(self, data: Data, batch: int, steps: int | None = None) -> None:
        super().__init__(data.rows, batch, steps)
        self._data = data

    def _steps_at(self, at: int, count: int) -> Steps:
        return self._data, at, count


class SparseFeed(RowsFeed):
    """The rows of a sparse matrix, which are made dense some batches at a time: never all of them at once.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled.
    x : sparse matrix, (rows, columns)
        Inputs.
    y, sample_weight : array-like, optional
        Targets and weights of rows.
    class_weight : mapping or str, optional
        Weights of classes.
    batch, steps : int
        As for `RowsFeed`.
    shuffle : bool
        Whether each epoch has the order that dense rows would have.
    """

    has_order = True

    def __init__(
        self,
        state: TrainState,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        batch: int,
        steps: int | None,
        shuffle: bool,
    ) -> None:
        self._seed, self._dtype, self._x = state.seed, state.network.dtype, state.sparse_inputs(x)
        self._rows: int = self._x.shape[0]
        if self._rows == 0:
            raise ValueError("x: the data set is empty")
        self._y, self._weights = state.targets(y, self._rows, sample_weight, class_weight)
        with np.errstate(over="ignore"):
            if not np.isfinite(self._x.data.astype(self._dtype)).all():
                raise ValueError(f"x: NaN or infinity (in {self._dtype}) among the stored numbers; remove it first")
        _checks.refuse_not_finite("y", _checks.source(self._y), self._dtype)
        super().__init__(self._rows, batch, steps)
        self._shuffle = shuffle
        self._at_once = max(1, rows_at_once(self._x.shape[1]) // self.batch)
        self._places: npt.NDArray[np.int64] | None = None

    def begin(self, epoch: int) -> bool:
        """Begin an epoch, as `RowsFeed` does, and learn its order."""
        super().begin(epoch)
        self._places = epoch_order(self._seed, self.order, self._rows) if self._shuffle else None
        return True

    def _steps_at(self, at: int, count: int) -> Steps:
        count = min(count, self._at_once)
        span = slice(at * self.batch, min((at + count) * self.batch, self._rows))
        which = span if self._places is None else self._places[span]
        weights = _checks.no_source() if self._weights is None else _checks.source(self._weights[which])
        sources = _checks.source(dense_rows(self._x[which], self._dtype)), _checks.source(self._y[which])
        return Data(*sources, weights, span.stop - span.start), 0, count


class StreamFeed:
    """Batches that an iterable yields, each checked as it comes.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled.
    stream : Stream
        Where they come from.
    steps : int, optional
        Steps in an epoch; the next one goes on behind them. Without, an epoch ends where the iterable does.
    class_weight : mapping of int to float, optional
        A weight for each class.
    """

    has_order = True

    def __init__(
        self, state: TrainState, stream: Stream, steps: int | None, class_weight: Mapping[int, float] | None = None
    ) -> None:
        self._state, self._stream, self._class_weight = state, stream, class_weight
        self._part, self.order = steps, 0
        self.steps = stream.length if steps is None else steps
        self.batch = max(1, *readable("x", stream.peek()[0]).shape[:1])

    def begin(self, epoch: int) -> bool:
        """Begin an epoch; False where a generator has no more batches, which is warned of."""
        if self._part is None:
            self._stream.restart()
        if self._stream.is_empty():
            warn("the iterable has no batches left; give steps, or an iterable that starts anew with each epoch")
            return False
        return True

    def take(self, first: int, count: int) -> Steps | None:
        """Return the next step, or None behind the last."""
        if self.steps is not None and first >= self.steps:
            return None
        batch = self._stream.next()
        if batch is None:
            self._stream.restart()
            if self._part is not None:
                _warn_of_end(self._part)
            return None
        if len(batch) < 2:
            raise ValueError("x: its batches must be (x, y) or (x, y, sample_weight), got x alone")
        x, y, weight = (*batch, None)[:3]
        data = self._state.data(x, y, weight, self._class_weight)
        self.batch = max(self.batch, data.rows)
        return data, 0, 1


class Stream:
    """An iterable of batches, looked into before it is read.

    Parameters
    ----------
    source : iterable or callable
        A generator; an object that is iterated over anew each epoch, such as torch's DataLoader; one with
        ``__getitem__`` and ``__len__``; or a function that returns one of these, called for each epoch.

    Attributes
    ----------
    source : iterable or callable
        As given.
    length : int or None
        Batches in it; None where it does not say.
    """

    def __init__(self, source: Any) -> None:
        self.source, self._iterator = source, _iterator(source)
        self.length: int | None = len(source) if hasattr(source, "__len__") else None
        self._ahead: tuple[Any, ...] | None = None
        self._fresh = True

    def peek(self) -> tuple[Any, ...]:
        """Return the first batch, which stays where it is.

        Raises
        ------
        ValueError
            If there is none.
        """
        if self.is_empty():
            raise ValueError("x: the iterable yields no batch")
        assert self._ahead is not None
        return self._ahead

    def is_empty(self) -> bool:
        """Tell whether there is no next batch."""
        if self._ahead is None:
            fresh = self._fresh
            self._ahead, self._fresh = self.next(), fresh
        return self._ahead is None

    def next(self) -> tuple[Any, ...] | None:
        """Return the next batch, or None behind the last."""
        if self._ahead is not None:
            batch, self._ahead, self._fresh = self._ahead, None, False
            return batch
        self._fresh = False
        for batch in self._iterator:
            return tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        return None

    def restart(self) -> None:
        """Begin anew, where the source can; a generator goes on."""
        if not self._fresh:
            if hasattr(self.source, "on_epoch_end"):  # such as Keras's PyDataset, which may shuffle there
                self.source.on_epoch_end()
            self._iterator, self._fresh = _iterator(self.source), True

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (batch := self.next()) is not None:
            yield batch


def opened(x: Any) -> Any:
    """Return data as a Stream where they are batches to iterate over; arrays, and what becomes one, as they are."""
    is_array = isinstance(x, list | tuple | str | bytes | Mapping) or hasattr(x, "__array__") or hasattr(x, "shape")
    if is_array or isinstance(x, Stream):
        return x
    return Stream(x) if hasattr(x, "__iter__") or hasattr(x, "__getitem__") or callable(x) else x


def first_rows(x: Any) -> Any:
    """Return the inputs of the first batch of a Stream; an array as it is."""
    return x.peek()[0] if isinstance(x, Stream) else x


def input_batches(x: Any, batch: int, steps: int | None) -> tuple[Iterable[Any], int | None]:
    """Return the batches of inputs that a prediction reads, and their number; None where only their end will tell.

    Parameters
    ----------
    x : array-like or Stream
        Inputs, or batches.
    batch : int
        Rows in a batch of an array.
    steps : int, optional
        Batches to read at most.
    """
    if isinstance(x, Stream):
        return (parts[0] for parts in itertools.islice(x, steps)), x.length if steps is None else steps
    x = readable("x", x)
    starts = range(0, max(x.shape[0], 1), batch)[:steps]  # one that is empty, where there are no rows
    return (x[first : first + batch] for first in starts), len(starts)


def feed_of(
    state: TrainState,
    x: Any,
    y: Any,
    sample_weight: Any,
    batch: int,
    steps: int | None,
    class_weight: Any = None,
    shuffle: bool = False,
) -> Feed:
    """Return the feed of arrays, of a sparse matrix, or of a Stream of batches.

    Parameters
    ----------
    state : TrainState
        State of a model that is built and compiled.
    x : array-like, sparse matrix or Stream
        Inputs, or batches.
    y, sample_weight : array-like, optional
        Targets and weights of rows, where these are no batches.
    batch : int
        Rows in a step of arrays or of a sparse matrix.
    steps : int, optional
        Steps in an epoch; by default all that there are.
    class_weight : mapping or str, optional
        Weights of classes.
    shuffle : bool
        Whether rows of a sparse matrix come in an order of each epoch's; the engine orders those of arrays.

    Raises
    ------
    ValueError
        If something is given that a stream's batches have themselves, or no targets are.
    """
    if not isinstance(x, Stream):
        if y is None:
            raise ValueError("y: there are no targets; give them, or x as an iterable of (x, y)")
        if is_sparse(x):
            return SparseFeed(state, x, y, sample_weight, class_weight, batch, steps, shuffle)
        return ArrayFeed(state.data(x, y, sample_weight, class_weight), batch, steps)
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"{name}: x is a {type(x.source).__name__}, which yields batches (x, y) or (x, y, sample_weight); "
                f"leave {name} out, or make an array of x, for example with np.stack(list(x))"
            )
    if isinstance(class_weight, str):
        raise ValueError("class_weight: 'balanced' needs all targets at once; give the classes' weights in a dict")
    return StreamFeed(state, x, steps, class_weight)


def _iterator(source: Any) -> Iterator[Any]:
    if hasattr(source, "__iter__"):
        return iter(source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return (source[number] for number in range(len(source)))
    made: Iterable[Any] | Callable[[], Any] = source()
    return iter(made)  # type: ignore[arg-type]


def _warn_of_end(steps: int) -> None:
    warn(f"the data ended before the {steps} steps of an epoch were taken; give more data, or fewer steps")
