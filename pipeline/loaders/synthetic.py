"""Repeats one random batch on the device, to measure the speed of everything but loading."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import repeat

import torch

from pipeline.dataset.order import evaluation_places
from pipeline.distributed.world import World
from pipeline.loaders.base import Batch, Stream


@dataclass
class SyntheticStream:
    """Batches of the given sizes, each the beginning of one random batch."""

    batch: Batch
    sizes: Iterator[int]
    replaced: int = 0

    def __iter__(self) -> "SyntheticStream":
        return self

    def __next__(self) -> Batch:
        size = next(self.sizes)
        return Batch(self.batch.images[:size], self.batch.labels[:size])


@dataclass(frozen=True)
class SyntheticLoader:
    """A loader of random noise."""

    classes: int
    size: int
    eval_size: int
    seed: int
    train_batch: int
    batch_per_rank: int
    samples: int
    world: World

    def train(self, steps: range) -> AbstractContextManager[Stream]:
        """See `Loader`."""
        batch = self._random(self.train_batch, self.size)
        return nullcontext(SyntheticStream(batch, repeat(self.train_batch, len(steps))))

    def evaluate(self) -> AbstractContextManager[Stream]:
        """See `Loader`."""
        batches = evaluation_places(self.samples, part=self.world.part, batch=self.batch_per_rank)
        batch = self._random(self.batch_per_rank, self.eval_size)
        return nullcontext(SyntheticStream(batch, iter([len(b.samples) for b in batches])))

    def verify(self) -> list[str]:
        """See `Loader`; noise cannot be corrupt."""
        return []

    def _random(self, count: int, size: int) -> Batch:
        generator = torch.Generator().manual_seed(self.seed + self.world.rank)
        shape = (count, size, size, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, self.classes, (count,), generator=generator)
        return Batch(images.to(self.world.device), labels.to(self.world.device))
