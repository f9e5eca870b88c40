"""The shuffled order: from a position in the stream of training images to a sample.

The stream is one permutation of the samples after another, one for each epoch, divided into global
batches without a gap. Each epoch has each sample exactly once, no sample is dropped, and the batch
of step t is computed without the batches before it. Here an epoch is shuffled as a whole;
windows.py has the order for storage that seeks slowly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.feistel import shuffle

ORDER_DRAWS = 1
"""Fourth counter word of the draws made here; windows.py and augment/crops.py use others."""


@dataclass(frozen=True, slots=True)
class BatchIndices:
    """The images of a batch: sample numbers and epochs, each int64 of shape (n,)."""

    samples: NDArray[np.int64]
    epochs: NDArray[np.int64]


def training_places(
    step: int, *, samples: int, seed: int, global_batch: int, part: tuple[int, int] = (0, 1)
) -> BatchIndices:
    """Return the images of a step (counted from 1), or one rank's part of them."""
    positions = stream_positions(step, global_batch=global_batch, part=part)
    epochs, offsets = np.divmod(positions, samples)
    numbers = np.empty_like(positions)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        numbers[of_epoch] = permute(offsets[of_epoch], samples, seed=seed, epoch=int(epoch))
    return BatchIndices(numbers, epochs)


def stream_positions(step: int, *, global_batch: int, part: tuple[int, int]) -> NDArray[np.int64]:
    """Return the positions in the stream (counted from 0) of one rank's images of a step.

    `part` is (rank, world size). Ranks take consecutive, equal slices of the global batch, so the
    order of its images does not depend on the world size.
    """
    rank, world = part
    assert global_batch % world == 0, "checked when the micro batch is derived"
    share = global_batch // world
    first = (step - 1) * global_batch + rank * share
    return np.arange(first, first + share, dtype=np.int64)


def evaluation_places(samples: int, *, part: tuple[int, int], batch: int) -> list[BatchIndices]:
    """Return one rank's batches of a split; over all ranks, each sample comes exactly once.

    Ranks may have different numbers of batches. The last may be short, but is never empty.
    """
    rank, world = part
    return in_batches(np.arange(rank, samples, world, dtype=np.int64), batch)


def in_batches(samples: NDArray[np.int64], batch: int) -> list[BatchIndices]:
    """Divide samples to evaluate into batches; the last may be short, but is never empty."""
    batches = (samples[at : at + batch] for at in range(0, len(samples), batch))
    return [BatchIndices(numbers, np.zeros_like(numbers)) for numbers in batches]


def permute(
    offsets: NDArray[np.int64], samples: int, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Map offsets in [0, samples) one to one to sample numbers, differently in each epoch."""
    counter = (epoch & 0xFFFFFFFF, epoch >> 32, ORDER_DRAWS)
    return shuffle(offsets, samples, seed=seed, counter=counter)
