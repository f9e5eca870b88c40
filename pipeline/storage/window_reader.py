"""Prefetches windows into the page cache, in reads as long as the files allow.

Only the page cache is filled: the sample reader still reads and checks every image, and reports
read errors that are ignored here.
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
"""Gaps between images (headers, labels) up to this size are read rather than skipped."""
ARCHIVE_THREADS = 2
"""One thread requests the next chunk while the other waits: the disk is never idle."""
BEFORE_ALL, AFTER_ALL = 0, sys.maxsize
"""Steps are numbered from 1."""

Share = Callable[[int], tuple[int, int]]
"""From a lane to (number, count) of this rank among the ranks of its node that read the lane."""


@dataclass(frozen=True, slots=True)
class ByteRanges:
    """Ranges of bytes in the order in which they are stored: int64 of shape (n,)."""

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
    """Return the byte ranges of a window's images; ranges less than GAP_BYTES apart are joined."""
    samples = np.concatenate([index.stored[begin:end] for begin, end in window.runs.tolist()])
    files, starts = index.file_ids[samples].astype(np.int64), index.offsets[samples]
    ends = starts + index.sizes[samples]
    apart = (files[1:] != files[:-1]) | (starts[1:] - ends[:-1] > GAP_BYTES)
    first = np.append(0, np.flatnonzero(apart) + 1)
    return ByteRanges(files[first], starts[first], np.maximum.reduceat(ends, first))


def share_of_lane(lane: int, *, lanes: int, world: World) -> tuple[int, int]:
    """Return (number, count) of this rank among the ranks of its node that a lane feeds.

    Each of them reads its part of the lane's windows into the page cache that they share.
    """
    node = world.rank - world.local_rank
    first = max(node, lane * world.size // lanes)
    last = min(node + world.local_size, -(-(lane + 1) * world.size // lanes)) - 1
    return world.rank - first, last - first + 1


class WindowReader(AbstractContextManager["WindowReader"]):
    """A thread that prefetches each window before its first step, at most one window ahead."""

    def __init__(
        self, index: Index, windows: Iterator[Window], *, share: Share, read_threads: int
    ) -> None:
        self._index, self._windows, self._share = index, windows, share
        archives = len(index.files) < len(index)
        # Opening single files waits for the server: as many threads as the sample reader has.
        self._threads = ARCHIVE_THREADS if archives else read_threads
        self._buffers = local()
        self._changed = Condition()
        self._reached = BEFORE_ALL
        self._unread_from = BEFORE_ALL
        """The first step of the window that is read now or next."""
        self._stopped = False
        self._thread = Thread(target=self._run, name="read-windows", daemon=True)

    def follow(self, steps: Iterable[int]) -> Iterator[int]:
        """Yield each step once its windows have been read; after the end, yield without waiting.

        Block here: reading single images now would only compete with the prefetch for the disk.
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
        """Wait until a window may be read; return False if the reader was stopped."""
        self._announce(window.first_step)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._reached >= window.read_from_step)
            return not self._stopped

    def _announce(self, unread_from: int) -> None:
        with self._changed:
            self._unread_from = unread_from
            self._changed.notify_all()

    def _chunks(self, window: Window) -> list[tuple[int, int, int]]:
        """Return every n-th chunk of a window, so that ranks read neighbouring chunks at once."""
        number, count = self._share(window.lane)
        return list(byte_ranges(self._index, window).chunks(CHUNK_BYTES))[number::count]

    def _read(self, chunk: tuple[int, int, int]) -> None:
        file, start, end = chunk
        if self._stopped:
            return
        with suppress(OSError):
            descriptor = os.open(self._index.root / self._index.files[file].as_py(), os.O_RDONLY)
            try:
                # Linux reads an announced range in large requests, others in small ones.
                os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_WILLNEED)
                self._fill(descriptor, start, end)
            finally:
                os.close(descriptor)

    def _fill(self, descriptor: int, start: int, end: int) -> None:
        buffer = self._buffer()
        while start < end:
            got = os.preadv(descriptor, [buffer[: end - start]], start)
            if got == 0:  # the file was truncated
                return
            start += got

    def _buffer(self) -> memoryview:
        if not hasattr(self._buffers, "view"):
            self._buffers.view = memoryview(bytearray(CHUNK_BYTES))
        return self._buffers.view
