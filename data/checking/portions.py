"""A split read in portions by several threads, in the order on disk."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from data.checking.damaged_files import NOT_THERE
from data.checking.examination import SizeLimits, StoredImage, examine
from data.checking.flaws import FaultKind, Flaw
from pipeline.dataset.index import Index
from pipeline.dataset.samples import digest
from pipeline.storage.files import FileState
from pipeline.storage.reader import read_range

PORTION_IMAGES = 64
PORTION_BYTES = 16_000_000
PORTION_PIXELS = 200_000_000
"""A decoded portion takes three bytes for each pixel."""
AHEAD = 2
"""Portions that are read or waiting, besides one for each worker."""


@dataclass(slots=True)
class Portion:
    """Neighbouring samples, read and compared with the index."""

    size: int
    flaws: list[Flaw] = field(default_factory=list[Flaw])
    images: list[StoredImage] = field(default_factory=list[StoredImage])
    """Images without a fault; empty unless they will be decoded."""
    kinds: Counter[str] = field(default_factory=Counter[str])
    """Number of images in each format."""


@dataclass(frozen=True, slots=True)
class PortionReader:
    """Reads portions of an index, whose files are in `states`; safe to use from several threads."""

    index: Index
    states: Sequence[FileState]
    limits: SizeLimits | None
    """If given, images are examined and kept for decoding."""

    def read_all(self, workers: int) -> Iterator[Portion]:
        """Read the whole split with `workers` threads; yield its portions in order."""
        with ThreadPoolExecutor(workers, "verify") as pool:
            pending: deque[Future[Portion]] = deque()
            try:
                for samples in in_portions(self.index):
                    pending.append(pool.submit(self._read, samples))
                    if len(pending) >= workers + AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _read(self, samples: NDArray[np.int64]) -> Portion:
        portion = Portion(int(self.index.sizes[samples].sum()))
        for file, group in groupby(samples.tolist(), key=self.index.file_ids.__getitem__):
            self._read_file(int(file), list(group), portion)
        return portion

    def _read_file(self, file: int, samples: Sequence[int], portion: Portion) -> None:
        state = self.states[file]
        if isinstance(state, str):
            kind: FaultKind = "missing" if state in NOT_THERE else "unreadable"
            portion.flaws += [Flaw(sample, kind, state) for sample in samples]
            return
        path = self.index.path(samples[0])
        try:
            # Without this flag, opening a named pipe would wait forever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            reason = error.strerror or str(error)
            portion.flaws += [Flaw(sample, "unreadable", reason) for sample in samples]
            return
        try:
            for sample in samples:
                self._read_image(descriptor, sample, state[0], portion)
        finally:
            os.close(descriptor)

    def _read_image(self, descriptor: int, sample: int, file_size: int, portion: Portion) -> None:
        size, offset = int(self.index.sizes[sample]), int(self.index.offsets[sample])
        if size == 0:
            portion.flaws.append(Flaw(sample, "empty", "it has no bytes"))
        elif offset + size > file_size:
            there = max(0, file_size - offset)
            reason = f"only {there:,} of its bytes are left: the file ends at byte {file_size:,}"
            portion.flaws.append(Flaw(sample, "truncated", reason))
        else:
            try:
                content = read_range(descriptor, size, offset)
            except OSError as error:
                portion.flaws.append(Flaw(sample, "unreadable", error.strerror or str(error)))
            else:
                self._compare(StoredImage(sample, content), portion)

    def _compare(self, image: StoredImage, portion: Portion) -> None:
        if digest(image.content) != self.index.digests[image.sample].tobytes():
            reason = "its bytes do not match the index"
            portion.flaws.append(Flaw(image.sample, "changed", reason))
        elif self.limits:
            kind, flaws = examine(self.index, image, self.limits)
            portion.kinds[kind] += 1
            portion.flaws += flaws
            if not any(flaw.is_fault for flaw in flaws):
                portion.images.append(image)


def in_portions(index: Index) -> list[NDArray[np.int64]]:
    """Divide the samples, in the order on disk, into portions."""
    stored = index.stored
    pixels = index.widths[stored].astype(np.int64) * index.heights[stored]
    marks = (
        np.arange(len(stored)) // PORTION_IMAGES
        + np.cumsum(index.sizes[stored]) // PORTION_BYTES
        + np.cumsum(pixels) // PORTION_PIXELS
    )
    return np.split(stored, np.flatnonzero(np.diff(marks)) + 1) if len(stored) else []
