"""The order of the images: from a position in the stream to a sample, computed, never stored.

The stream of a run is one permutation of the samples after another, one for each epoch, cut into
global batches without a gap: every epoch holds every sample exactly once, no sample is dropped, and
the batch of step t is known without drawing the batches before it. Here an epoch is shuffled as a
whole; windows.py has the order for storage that is slow to seek.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.feistel import shuffle

ORDER_DRAWS = 1
"""Fourth counter word of the draws made here; windows.py and augment.py use others."""


@dataclass(frozen=True, slots=True)
class BatchIndices:
    """Where the images of a batch come from: sample numbers and epochs, int64 of shape (n,)."""

    samples: NDArray[np.int64]
    epochs: NDArray[np.int64]


def training_places(
    step: int, *, samples: int, seed: int, global_batch: int, part: tuple[int, int] = (0, 1)
) -> BatchIndices:
    """Return the places of step `step` (from 1 on) of the stream, or of one rank's part of it."""
    positions = stream_positions(step, global_batch=global_batch, part=part)
    epochs, offsets = np.divmod(positions, samples)
    numbers = np.empty_like(positions)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        numbers[of_epoch] = permute(offsets[of_epoch], samples, seed=seed, epoch=int(epoch))
    return BatchIndices(numbers, epochs)


def stream_positions(step: int, *, global_batch: int, part: tuple[int, int]) -> NDArray[np.int64]:
    """Return the positions in the stream, from 0 on, that one rank takes at step `step`.

    `part` is (rank, world size): ranks take consecutive, equal slices of the global batch, so the
    same images sit side by side whatever the world size.
    """
    rank, world = part
    assert global_batch % world == 0, "checked when the micro batch is derived"
    share = global_batch // world
    first = (step - 1) * global_batch + rank * share
    return np.arange(first, first + share, dtype=np.int64)


def evaluation_places(samples: int, *, part: tuple[int, int], batch: int) -> list[BatchIndices]:
    """Return one rank's batches of a split in which each sample comes exactly once over all ranks.

    Ranks may get different numbers of batches, the last of which may be short; none is empty.
    """
    rank, world = part
    return in_batches(np.arange(rank, samples, world, dtype=np.int64), batch)


def in_batches(samples: NDArray[np.int64], batch: int) -> list[BatchIndices]:
    """Cut samples to be evaluated into batches, the last of which may be short; none is empty."""
    batches = (samples[at : at + batch] for at in range(0, len(samples), batch))
    return [BatchIndices(numbers, np.zeros_like(numbers)) for numbers in batches]


def permute(
    offsets: NDArray[np.int64], samples: int, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Map each offset in [0, samples) to a sample number, one to one, anew in each epoch."""
    counter = (epoch & 0xFFFFFFFF, epoch >> 32, ORDER_DRAWS)
    return shuffle(offsets, samples, seed=seed, counter=counter)
