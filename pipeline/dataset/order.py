"""The order of the images: from a position in the stream to a sample, computed, never stored.

The stream of a run is one permutation of the samples after another, one for each epoch, cut into
global batches without a gap: every epoch holds every sample exactly once, no sample is dropped, and
the batch of step t is known without drawing the batches before it. The permutation is a Feistel
network with cycle walking (Black and Rogaway 2002; Mitchell et al. 2022 use the same for shuffling
on GPUs), so 100 million samples need as little memory as ten.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.philox import Words, philox

FEISTEL_ROUNDS = 12
ORDER_DRAWS = 1
"""Fourth counter word of the draws made here; augment.py uses others."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the images of a batch come from: sample numbers and epochs, int64 of shape (n,)."""

    samples: NDArray[np.int64]
    epochs: NDArray[np.int64]


def training_places(
    step: int, *, samples: int, seed: int, global_batch: int, part: tuple[int, int] = (0, 1)
) -> Places:
    """Return the places of step `step` (from 1 on) of the stream, or of one rank's part of it.

    `part` is (rank, world size): ranks take consecutive, equal slices of the global batch, so the
    same images sit side by side whatever the world size.
    """
    rank, world = part
    assert global_batch % world == 0, "checked when the micro batch is derived"
    share = global_batch // world
    first = (step - 1) * global_batch + rank * share
    positions = np.arange(first, first + share, dtype=np.int64)
    epochs, offsets = np.divmod(positions, samples)
    numbers = np.empty_like(positions)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        numbers[of_epoch] = permute(offsets[of_epoch], samples, seed=seed, epoch=int(epoch))
    return Places(numbers, epochs)


def evaluation_places(samples: int, *, part: tuple[int, int], batch: int) -> list[Places]:
    """Return one rank's batches of a split in which each sample comes exactly once over all ranks.

    Ranks may get different numbers of batches, the last of which may be short; none is empty.
    """
    rank, world = part
    mine = np.arange(rank, samples, world, dtype=np.int64)
    batches = (mine[at : at + batch] for at in range(0, len(mine), batch))
    return [Places(numbers, np.zeros_like(numbers)) for numbers in batches]


def permute(
    offsets: NDArray[np.int64], samples: int, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Map each offset in [0, samples) to a sample number, one to one, anew in each epoch."""
    bits = max(2, (samples - 1).bit_length())
    keys = _round_keys(seed, epoch)
    numbers = _feistel(offsets.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(numbers >= samples)
    while outside.size:  # Walking the cycle until it is inside again keeps the map one to one.
        numbers[outside] = _feistel(numbers[outside], bits, keys)
        outside = outside[numbers[outside] >= samples]
    return numbers.astype(np.int64)


@lru_cache(maxsize=4)
def _round_keys(seed: int, epoch: int) -> Words:
    rounds = np.arange(FEISTEL_ROUNDS)
    return philox(seed, rounds, epoch & 0xFFFFFFFF, epoch >> 32, ORDER_DRAWS)[0]


def _feistel(numbers: NDArray[np.uint64], bits: int, keys: Words) -> NDArray[np.uint64]:
    """One keyed permutation of [0, 2**bits); the halves may differ in width and swap each round."""
    low_bits, high_bits = bits // 2, bits - bits // 2
    for key in keys:
        low = numbers & np.uint64((1 << low_bits) - 1)
        high = numbers >> np.uint64(low_bits)
        mixed = high ^ (_mix(low ^ (np.uint64(key) << np.uint64(32))) >> np.uint64(64 - high_bits))
        numbers = (low << np.uint64(high_bits)) | mixed
        low_bits, high_bits = high_bits, low_bits
    return numbers


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): every bit depends on every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
