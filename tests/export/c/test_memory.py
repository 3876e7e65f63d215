"""Plans of memory: nothing overlaps, and chains take two buffers."""

import numpy as np
import pytest

from nbdense.export.c.memory import place_of_input, plan


def chain_of(sizes):
    """A chain of layers, whose input (0) and last output are the caller's."""
    tensors = range(1, len(sizes))
    return {tensor: sizes[tensor] for tensor in tensors[:-1]}, [(tensor - 1,) for tensor in tensors], list(tensors)


@pytest.mark.parametrize(
    ("sizes", "total"),
    [
        ([640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640], 256),
        ([784, 300, 100, 10], 400),
        ([5, 100, 300, 300, 2], 600),
        ([5, 7, 3, 4, 9, 1, 8, 2], 13),
        ([5, 3], 0),
        ([5, 4, 3], 4),
    ],
)
def test_a_chain_takes_two_buffers(sizes, total):
    assert plan(*chain_of(sizes))[1] == total


@pytest.mark.parametrize(
    ("sizes", "place"),
    [
        ([20, 64, 64, 2], 64),
        ([64, 64, 64, 2], 64),
        ([65, 64, 64, 2], None),
        ([784, 300, 100, 10], None),
        ([5, 3], None),
    ],
)
def test_the_input_lies_where_nothing_is_needed_yet(sizes, place):
    inner, reads, writes = chain_of(sizes)
    places, _ = plan(inner, reads, writes)
    assert place_of_input(0, dict(enumerate(sizes)), places, reads, writes) == place
    # A sum at the end reads the input again: then there is no room, whatever its size.
    assert place_of_input(0, dict(enumerate(sizes)), places, [*reads[:-1], (*reads[-1], 0)], writes) is None


@pytest.mark.parametrize("seed", range(30))
def test_tensors_that_are_needed_at_one_time_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(2, 12))
    sizes = {tensor: int(rng.integers(1, 50)) for tensor in range(1, steps)}
    reads = [tuple(int(n) for n in rng.integers(0, step + 1, 2)) if step else (0,) for step in range(steps)]
    writes = list(range(1, steps + 1))
    places, total = plan(sizes, reads, writes)
    held = [set() for _ in range(total)]
    last = {tensor: max([tensor - 1, *(step for step in range(steps) if tensor in reads[step])]) for tensor in sizes}
    for tensor, at in places.items():
        for element in range(at, at + sizes[tensor]):
            span = set(range(tensor - 1, last[tensor] + 1))
            assert not held[element] & span
            held[element] |= span
    assert set(places) == set(sizes)
