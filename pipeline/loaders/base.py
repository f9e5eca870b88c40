"""Batches, streams of batches, and the protocol of a loader."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's images, uint8 (n, height, width, 3), and labels, int64 (n,), on its device.

    In evaluation an image that could not be read has label -1, so it counts as an error.
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
    """Opens streams of batches; every call returns a new, independent stream."""

    def train(self, steps: range) -> AbstractContextManager[Stream]:
        """Stream this rank's part of the global batches of `steps` (numbered from 1)."""
        ...

    def evaluate(self) -> AbstractContextManager[Stream]:
        """Stream this rank's share of the validation images; over all ranks each comes once."""
        ...

    def verify(self) -> list[str]:
        """Decode this rank's share of all images; return one line for each that is corrupt."""
        ...
