"""A plan of memory: the place of each tensor of a network in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

Places = dict[int, int]
Span = tuple[int, int]


def plan(sizes: Mapping[int, int], reads: Sequence[Sequence[int]], writes: Sequence[int]) -> tuple[Places, int]:
    """Place tensors so that those that are needed at one time do not overlap; return places and the memory's size.

    In a chain of layers two buffers take turns, one at each end of a memory that is as large as the two tensors that
    need most together. Where that does not do, the largest tensor goes first, each to the lowest place that is free
    while it is needed.

    Parameters
    ----------
    sizes : mapping of int to int
        Elements of each tensor that is to be placed.
    reads : sequence of sequences of int
        The tensors that each step reads,
    writes : sequence of int
        and the one that it writes.
    """
    spans = _spans(sizes, reads, writes)
    least = max((_alive(sizes, spans, step) for step in range(len(writes))), default=0)

    def ends(tensor: int, taken: list[Span]) -> Iterable[int]:
        return (at for at in (0, least - sizes[tensor]) if _is_free((at, at + sizes[tensor]), taken))

    def lowest(tensor: int, taken: list[Span]) -> Iterable[int]:
        return _free_places(sizes[tensor], taken)

    by_time = sorted(sizes, key=lambda tensor: spans[tensor][0])
    by_size = sorted(sizes, key=lambda tensor: (-sizes[tensor], tensor))
    places = _placed(by_time, sizes, spans, ends) or _placed(by_size, sizes, spans, lowest)
    return places, max((places[tensor] + sizes[tensor] for tensor in places), default=0)


def place_of_input(
    tensor: int, sizes: Mapping[int, int], places: Places, reads: Sequence[Sequence[int]], writes: Sequence[int]
) -> int | None:
    """Return where there is room for the input among the tensors of a plan; None where there is not.

    Parameters
    ----------
    tensor : int
        The input.
    sizes : mapping of int to int
        Elements of all tensors.
    places : dict of int to int
        Where each of those lies that were placed.
    reads, writes : sequences
        As `plan` has them.
    """
    spans = _spans(places, reads, writes)
    last = max((step for step, tensors in enumerate(reads) if tensor in tensors), default=0)
    taken = [(at, at + sizes[other]) for other, at in places.items() if spans[other][0] <= last]
    memory = max((at + sizes[other] for other, at in places.items()), default=0)
    return next((at for at in _free_places(sizes[tensor], taken) if at + sizes[tensor] <= memory), None)


def _spans(tensors: Iterable[int], reads: Sequence[Sequence[int]], writes: Sequence[int]) -> dict[int, Span]:
    """Return the first and the last step in which each tensor is needed."""
    first = {tensor: step for step, tensor in enumerate(writes)}
    last = {tensor: step for step, inputs in enumerate(reads) for tensor in inputs}
    return {tensor: (first[tensor], last.get(tensor, first[tensor])) for tensor in tensors}


def _free_places(size: int, taken: Sequence[Span]) -> Iterable[int]:
    """Return where so many elements are free, from the lowest place on."""
    starts = sorted({0, *(end for _, end in taken)})
    return (at for at in starts if _is_free((at, at + size), taken))


def _alive(sizes: Mapping[int, int], spans: Mapping[int, Span], step: int) -> int:
    """Count the elements that are needed during a step."""
    return sum(sizes[tensor] for tensor, (begin, end) in spans.items() if begin <= step <= end)


def _is_free(piece: Span, taken: Sequence[Span]) -> bool:
    return all(piece[1] <= begin or end <= piece[0] for begin, end in taken)


def _placed(
    order: Sequence[int],
    sizes: Mapping[int, int],
    spans: Mapping[int, Span],
    candidates: Callable[[int, list[Span]], Iterable[int]],
) -> Places:
    """Put each tensor where the first candidate is; return no places if one finds none."""
    places: Places = {}
    for tensor in order:
        begin, end = spans[tensor]
        taken = [
            (places[other], places[other] + sizes[other])
            for other in places
            if spans[other][0] <= end and begin <= spans[other][1]
        ]
        at = next(iter(candidates(tensor, taken)), None)
        if at is None:
            return {}
        places[tensor] = at
    return places
