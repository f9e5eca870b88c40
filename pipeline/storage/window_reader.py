"""Reads windows into the page cache before they are used, in runs as long as they lie on disk.

Only the system's cache is filled: every image is still read, and checked, by the reader of samples.
What cannot be read here is left for that reader to report.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from threading import Condition, Thread, local
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.index import Index
from pipeline.dataset.windows import Window
from pipeline.distributed.world import World

CHUNK_BYTES = 8 << 20
GAP_BYTES = 256 << 10
"""So much between two images (headers, labels) is sooner read than skipped."""
ARCHIVE_THREADS = 2
"""One asks for the next chunk while the other waits for its own: the disk is never idle."""
BEFORE_ALL, AFTER_ALL = 0, sys.maxsize
"""Steps are numbered from 1."""

Share = Callable[[int], tuple[int, int]]
"""From a lane to (number, count) of this rank among those of its node that read the lane."""


@dataclass(frozen=True, slots=True)
class ByteRanges:
    """Ranges of bytes in the order in which they lie on disk: int64 of shape (n,)."""

    files: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def chunks(self, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield (file, start, end) in pieces of at most `size` bytes."""
        rows = np.stack([self.files, self.starts, self.ends], 1).tolist()
        for file, start, end in rows:
            for at in range(start, end, size):
                yield file, at, min(at + size, end)


def byte_ranges(index: Index, window: Window) -> ByteRanges:
    """Return the ranges that hold a window's images, those that all but touch each other joined."""
    samples = np.concatenate([index.stored[begin:end] for begin, end in window.runs.tolist()])
    files, starts = index.file_ids[samples].astype(np.int64), index.offsets[samples]
    ends = starts + index.sizes[samples]
    apart = (files[1:] != files[:-1]) | (starts[1:] - ends[:-1] > GAP_BYTES)
    first = np.append(0, np.flatnonzero(apart) + 1)
    return ByteRanges(files[first], starts[first], np.maximum.reduceat(ends, first))


def share_of_lane(lane: int, *, lanes: int, world: World) -> tuple[int, int]:
    """Return (number, count) of this rank among the ranks of its node that a lane feeds.

    They read the lane's windows together, each its part, into the cache that they have in common.
    """
    node = world.rank - world.local_rank
    first = max(node, lane * world.size // lanes)
    last = min(node + world.local_size, -(-(lane + 1) * world.size // lanes)) - 1
    return world.rank - first, last - first + 1


class WindowReader(AbstractContextManager["WindowReader"]):
    """A thread that reads each window before its first step, and at most one window ahead."""

    def __init__(
        self, index: Index, windows: Iterator[Window], *, share: Share, read_threads: int
    ) -> None:
        self._index, self._windows, self._share = index, windows, share
        archives = len(index.files) < len(index)
        # Single files wait for the server to open them: that many at a time, as they are read.
        self._threads = ARCHIVE_THREADS if archives else read_threads
        self._buffers = local()
        self._changed = Condition()
        self._reached = BEFORE_ALL
        self._unread_from = BEFORE_ALL
        """The first step of the window that is being read or read next."""
        self._stopped = False
        self._thread = Thread(target=self._run, name="read-windows", daemon=True)

    def follow(self, steps: Iterable[int]) -> Iterator[int]:
        """Yield the steps, each once its windows have been read; all at once after the end.

        Whoever waited for a disk that cannot keep up would only slow it down by reading on his own.
        """
        for step in steps:
            with self._changed:
                self._reached = step
                self._changed.notify_all()
                self._changed.wait_for(lambda now=step: self._stopped or self._unread_from > now)
            yield step

    def __enter__(self) -> "WindowReader":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(self._threads, "read-window") as pool:
                for window in self._windows:
                    if not self._await_turn(window):
                        return
                    for _ in pool.map(self._read, self._chunks(window)):
                        pass
        finally:
            self._announce(AFTER_ALL)

    def _await_turn(self, window: Window) -> bool:
        """Wait until a window may be read; return whether it still should be."""
        self._announce(window.first_step)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._reached >= window.read_from_step)
            return not self._stopped

    def _announce(self, unread_from: int) -> None:
        with self._changed:
            self._unread_from = unread_from
            self._changed.notify_all()

    def _chunks(self, window: Window) -> list[tuple[int, int, int]]:
        """This rank's part of a window; taking turns, ranks move over the disk side by side."""
        number, count = self._share(window.lane)
        return list(byte_ranges(self._index, window).chunks(CHUNK_BYTES))[number::count]

    def _read(self, chunk: tuple[int, int, int]) -> None:
        file, start, end = chunk
        if self._stopped:
            return
        with suppress(OSError):
            descriptor = os.open(self._index.root / self._index.files[file].as_py(), os.O_RDONLY)
            try:
                # The system asks for a range that it was told of in one go, and else bit by bit.
                os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_WILLNEED)
                self._fill(descriptor, start, end)
            finally:
                os.close(descriptor)

    def _fill(self, descriptor: int, start: int, end: int) -> None:
        buffer = self._buffer()
        while start < end:
            got = os.preadv(descriptor, [buffer[: end - start]], start)
            if got == 0:  # the file was cut
                return
            start += got

    def _buffer(self) -> memoryview:
        if not hasattr(self._buffers, "view"):
            self._buffers.view = memoryview(bytearray(CHUNK_BYTES))
        return self._buffers.view
