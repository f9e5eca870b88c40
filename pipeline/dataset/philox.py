"""Counted randomness: Philox4x32-10, vectorised (Salmon et al. 2011, "as easy as 1, 2, 3").

A draw is a function of (seed, counter) alone. No state is carried, so any rank can make any draw of
any epoch, in any order.
"""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
LOW_WORD = np.uint64(0xFFFFFFFF)
WORD_BITS = np.uint64(32)


def philox(seed: int, *counter: NDArray[np.integer] | int) -> Words:
    """Return four random words for each counter: uint32 of shape (4, n).

    `counter` is four values below 2**32, scalars or arrays of shape (n,); `seed` is below 2**64.
    """
    assert len(counter) == 4, "a Philox counter has four words"
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word).astype(np.uint64) for word in counter))
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    for _ in range(ROUNDS):
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (right >> WORD_BITS) ^ c1 ^ key[0], right & LOW_WORD
        c2, c3 = (left >> WORD_BITS) ^ c3 ^ key[1], left & LOW_WORD
        key = key + np.array(KEY_STEPS, np.uint32)
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def uniform(words: Words) -> NDArray[np.float64]:
    """Map words to floats that are uniform on the open interval (0, 1)."""
    return (words.astype(np.float64) + 0.5) / 2.0**32


def below(words: Words, bound: NDArray[np.integer] | int) -> NDArray[np.int64]:
    """Map words to integers in [0, bound), for 1 <= bound < 2**31."""
    return ((words.astype(np.uint64) * np.asarray(bound, np.uint64)) >> WORD_BITS).astype(np.int64)
