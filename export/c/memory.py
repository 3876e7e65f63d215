"""A plan of memory: the place of each tensor of a network in one piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def plan(sizes: Mapping[int, int], reads: Sequence[Sequence[int]], writes: Sequence[int]) -> tuple[dict[int, int], int]:
    """Place tensors so that those that are needed at one time do not overlap; return places and the memory's size.

    The largest goes first, each to the lowest place that is free while it is needed. In a chain of layers that makes
    two buffers that take turns, as large as the two tensors that need most together.

    Parameters
    ----------
    sizes : mapping of int to int
        Elements of each tensor that is to be placed.
    reads : sequence of sequences of int
        The tensors that each step reads,
    writes : sequence of int
        and the one that it writes.
    """
    first = {tensor: step for step, tensor in enumerate(writes)}
    last = {tensor: step for step, tensors in enumerate(reads) for tensor in tensors}
    places: dict[int, int] = {}
    for tensor in sorted(sizes, key=lambda tensor: (-sizes[tensor], tensor)):
        span = first[tensor], last.get(tensor, first[tensor])
        taken = sorted(
            (places[other], places[other] + sizes[other])
            for other in places
            if first[other] <= span[1] and span[0] <= last.get(other, first[other])
        )
        at = 0
        for begin, end in taken:
            if at + sizes[tensor] <= begin:
                break
            at = max(at, end)
        places[tensor] = at
    return places, max((places[tensor] + sizes[tensor] for tensor in places), default=0)
