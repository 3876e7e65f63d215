"""Counter-based random numbers: a function of a key and a counter, the same for any split of the work.

Method: the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)
as hash; shuffling is a Feistel network over a slightly larger domain, walked until it lands inside (Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002), so that an epoch's order needs no memory and any place of it is known.
"""

from __future__ import annotations

import math

import numpy as np

from nbdense._compile.policy import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ROUND, _ROUND_2, _ROUND_3 = (np.uint64(i * int(_M2) % 2**64) for i in (1, 2, 3))  # a key for each
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@kernel
def mix(value):
    """Return a 64-bit hash of a 64-bit number."""
    value = np.uint64(value) + _GOLDEN
    value = (value ^ (value >> _30)) * _M1
    value = (value ^ (value >> _27)) * _M2
    return value ^ (value >> _31)


@kernel
def key_of(seed, stream, number):
    """Return the key of one use of randomness: by the seed, a stream's number, and an epoch's or step's."""
    return mix(mix(np.uint64(seed) ^ mix(np.uint64(stream))) ^ np.uint64(number))


@kernel
def _below(key, value, bound):
    """Return a hash of ``value`` in [0, bound), bound < 2**32."""
    bits = (value + key) * _GOLDEN
    bits = (bits ^ (bits >> _32)) * _M1
    return ((bits >> _32) * bound) >> _32


@kernel
def _permuted(key, left, right, left_size, right_size):
    """Return a place of a permutation of left_size * right_size numbers; it is given in two parts, (left, right)."""
    # From four rounds on, a Feistel network of random functions is a random permutation (Luby and Rackoff 1988). They
    # are written out: a loop in it would keep the caller's from becoming vectors.
    left += _below(key, right, left_size)
    left = left - left_size if left >= left_size else left
    right += _below(key + _ROUND, left, right_size)
    right = right - right_size if right >= right_size else right
    left += _below(key + _ROUND_2, right, left_size)
    left = left - left_size if left >= left_size else left
    right += _below(key + _ROUND_3, left, right_size)
    right = right - right_size if right >= right_size else right
    return left * right_size + right


@kernel
def shuffled(key, n, first, count, out, offset):
    """Write places first..first+count of the permutation of 0..n-1 that ``key`` names into out[offset:]."""
    left_size = np.uint64(math.ceil(math.sqrt(n)))
    right_size = (np.uint64(n) + left_size - np.uint64(1)) // left_size
    # All are taken once, several at a time: a loop without branches or divisions of integers, of which there are no
    # vectors. Floats divide as exactly below 2**53.
    divisor = float(np.int64(right_size))
    for i in range(count):
        place = first + i
        left = np.uint64(np.int64(float(place) / divisor))
        right = np.uint64(place) - left * right_size
        out[np.uint64(offset) + np.uint64(i)] = _permuted(key, left, right, left_size, right_size)
    for i in range(count):
        place = np.uint64(out[np.uint64(offset) + np.uint64(i)])
        while place >= np.uint64(n):  # the few outside walk on
            left = place // right_size
            place = _permuted(key, left, place - left * right_size, left_size, right_size)
        out[np.uint64(offset) + np.uint64(i)] = place


_A1, _A2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_15, _16 = np.uint32(15), np.uint32(16)


@kernel
def dropout_mask(noise, layer, rate, first, m, n, out, offset, ld):
    """Fill rows first..first+m of n columns with dropout's factors: 0 for a share ``rate``, else 1 / (1 - rate).

    A number for each logical element from the step's key ``noise`` and the layer's number, by two rounds of
    multiplying and shifting with the key in between; the constants are from Wellons's search for such hashes ("Hash
    function prospector", 2018), of the least bias that he found.
    """
    number = out.dtype.type
    key = mix(np.uint64(noise) ^ mix(np.uint64(layer)))
    low, high = np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> _32)
    threshold = np.uint32(min(rate * 4294967296.0, 4294967295.0))
    scale, zero = number(1.0 / (1.0 - rate)), number(0.0)
    for i in range(m):
        start, at = np.uint32(first + i) * np.uint32(n), np.uint64(offset + i * ld)
        for j in range(n):
            h = np.uint32(start + np.uint32(j)) ^ low
            h = np.uint32((h ^ (h >> _16)) * _A1)
            h = np.uint32((h ^ (h >> _15)) + high)
            h = np.uint32(h * _A2)
            h = np.uint32((h ^ (h >> _16)) * _A1)
            h = h ^ (h >> _16)
            out[at + np.uint64(j)] = scale if h >= threshold else zero
