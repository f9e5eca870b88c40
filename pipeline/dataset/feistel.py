"""A keyed permutation of a range of numbers, which maps each number without the others.

It is a Feistel network with cycle walking (Black and Rogaway 2002; Mitchell et al. 2022 shuffle
with it on GPUs), so 100 million numbers need as little memory as ten.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.philox import Words, philox

ROUNDS = 12


def shuffle(
    offsets: NDArray[np.int64], size: int, *, seed: int, counter: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Map offsets in [0, size) one to one to numbers in it, differently for each counter.

    The three words of `counter` are below 2**32; the last one identifies the caller.
    """
    bits = max(2, (size - 1).bit_length())
    keys = _round_keys(seed, counter)
    numbers = _feistel(offsets.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(numbers >= size)
    while outside.size:  # Walking the cycle until it is inside the range keeps the map one to one.
        numbers[outside] = _feistel(numbers[outside], bits, keys)
        outside = outside[numbers[outside] >= size]
    return numbers.astype(np.int64)


@lru_cache(maxsize=256)
def _round_keys(seed: int, counter: tuple[int, int, int]) -> Words:
    return philox(seed, np.arange(ROUNDS), *counter)[0]


def _feistel(numbers: NDArray[np.uint64], bits: int, keys: Words) -> NDArray[np.uint64]:
    """Permute [0, 2**bits); the halves may differ in width, and swap after each round."""
    low_bits, high_bits = bits // 2, bits - bits // 2
    for key in keys:
        low = numbers & np.uint64((1 << low_bits) - 1)
        high = numbers >> np.uint64(low_bits)
        mixed = high ^ (_mix(low ^ (np.uint64(key) << np.uint64(32))) >> np.uint64(64 - high_bits))
        numbers = (low << np.uint64(high_bits)) | mixed
        low_bits, high_bits = high_bits, low_bits
    return numbers


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix with SplitMix64's finaliser (Steele et al. 2014): each bit depends on all bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
