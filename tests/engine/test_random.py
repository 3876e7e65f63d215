"""Counter-based random numbers: shuffling that is a permutation, however the work is split."""

import numpy as np
import pytest

from nbdense._compile.policy import JIT
from nbdense.engine.kernels.random import key_of, mix, shuffled
from tests.support.compiled import compiled


@compiled
def places(key, n, first, count, out, offset):
    shuffled(np.uint64(key), n, first, count, out, offset)


@compiled
def keys(seed, stream, first, out):
    for i in range(out.size):
        out[i] = key_of(seed, stream, first + i)


@compiled
def mixed(values, out):
    for i in range(out.size):
        out[i] = mix(values[i])


def permutation(key, n, first=0, count=None):
    out = np.full((n - first if count is None else count) + 5, -1, np.int64)
    places(np.uint64(key), n, first, out.size - 5, out, 3)
    assert (out[:3] == -1).all() and (out[-2:] == -1).all()
    return out[3:-2]


SIZES = [*range(1, 27), *(k * k + d for k in ((7, 10, 31) if JIT else (7,)) for d in (-1, 0, 1))]


@pytest.mark.kernels
@pytest.mark.parametrize("n", SIZES)
def test_is_a_permutation(n):
    for key in (0, 1, 2**64 - 1, 0x123456789ABCDEF):
        np.testing.assert_array_equal(np.sort(permutation(key, n)), np.arange(n))


def test_an_epochs_order_is_the_same_in_every_release():
    assert permutation(2026, 23, 3, 12).tolist() == [12, 2, 11, 10, 3, 6, 14, 1, 9, 0, 16, 20]
    assert permutation(2026, 2**33 + 7, 2**33 - 4, 6).tolist() == [
        4390445629,
        4353701902,
        228449286,
        5926126431,
        1974266178,
        3716759847,
    ]


def test_large_permutation():
    assert len(np.unique(permutation(5, 1_000_003))) == 1_000_003


@pytest.mark.kernels
@pytest.mark.parametrize("n", [23, 100])
def test_any_split_gives_the_same_places(n):
    whole = permutation(3, n)
    for size in (1, 7, n):
        parts = [permutation(3, n, first, min(size, n - first)) for first in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.kernels
def test_keys_give_other_orders():
    orders = {tuple(permutation(key, 30)) for key in range(20)}
    assert len(orders) == 20
    assert tuple(range(30)) not in orders


@pytest.mark.parametrize("n", [2, 3, 5, 16, 50])
def test_every_element_comes_to_every_place_alike(n):
    """Over many keys: within 5 in 100 (a handful of rows is not shuffled perfectly), and six standard deviations."""
    trials = 20_000
    key = np.zeros(trials, np.uint64)
    keys(1, 2, 0, key)
    counts = np.zeros((n, n))
    for k in key:
        counts[np.arange(n), permutation(k, n)] += 1
    expected = trials / n
    assert np.abs(counts / expected - 1).max() < 0.05 + 6 / np.sqrt(expected)


def test_neighbours_part():
    """In a large shuffle few elements stay beside the one before them, and order is not kept."""
    order = permutation(9, 10_000)
    assert (np.diff(order) == 1).sum() < 10
    assert abs(np.corrcoef(order, np.arange(order.size))[0, 1]) < 0.05


@pytest.mark.kernels
def test_keys_differ_by_each_of_their_parts():
    out = np.zeros((4, 16), np.uint64)
    for row, (seed, stream) in enumerate([(0, 0), (0, 1), (1, 0), (2**62, 1)]):
        keys(seed, stream, 0, out[row])
    assert np.unique(out).size == out.size


@pytest.mark.kernels
def test_hash_is_splitmix64():
    """Outputs of SplitMix64 for the seed 1234567 (the published test vector of rosettacode.org and of Java's)."""
    golden = 0x9E3779B97F4A7C15
    values = np.array([(1234567 + i * golden) % 2**64 for i in range(5)], np.uint64)
    out = np.zeros_like(values)
    mixed(values, out)
    assert out.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
