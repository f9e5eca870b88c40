"""What a loader gives out, and what it must be able to do."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's images, uint8 (n, height, width, 3), and labels, int64 (n,), on its device.

    An evaluated image that could not be read has label -1: it is counted, as an error.
    """

    images: torch.Tensor
    labels: torch.Tensor


class Stream(Protocol):
    """An iterator of batches that owns threads and buffers until it is closed."""

    replaced: int
    """Corrupt images replaced so far on this rank."""

    def __next__(self) -> Batch: ...
    def __iter__(self) -> Iterator[Batch]: ...


class Loader(Protocol):
    """Makes streams of batches; each call stands alone and starts where it is told to."""

    def train(self, steps: range) -> AbstractContextManager[Stream]:
        """Stream this rank's part of the global batches of `steps` (numbered from 1)."""
        ...

    def evaluate(self) -> AbstractContextManager[Stream]:
        """Stream this rank's share of the validation images, over all ranks each exactly once."""
        ...

    def verify(self) -> list[str]:
        """Decode this rank's share of every image; say what is wrong, a line for each fault."""
        ...
