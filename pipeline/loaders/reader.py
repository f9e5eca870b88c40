"""Bytes of samples from disk, read ahead of their use by a few threads."""

import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.index import Index

T = TypeVar("T")
Content = NDArray[np.uint8]

MOST_OPEN_FILES = 256
"""Archives are kept open, within the usual limit of 1024 for a process that trains and evaluates; a
split of more files than this is one of single images, each opened when it is read."""


class SampleReader(AbstractContextManager["SampleReader"]):
    """Reads the stored bytes of samples of one index; safe to use from several threads."""

    def __init__(self, index: Index, threads: int) -> None:
        self.index = index
        self._pool = ThreadPoolExecutor(threads, "read")
        self._keep_open = len(index.files) <= MOST_OPEN_FILES
        self._open: dict[int, int] = {}

    def read(self, samples: NDArray[np.int64]) -> list[Content | OSError]:
        """Return the bytes of each sample, or the error that kept them from being read."""
        return list(self._pool.map(self._read_one, samples.tolist()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _read_one(self, sample: int) -> Content | OSError:
        try:
            content = self._read_range(sample)
        except OSError as error:
            return error
        wanted = int(self.index.sizes[sample])
        if len(content) < wanted:
            return OSError(f"only {len(content)} of {wanted} bytes are there")
        if wanted == 0:
            return OSError("the image is empty")
        return np.frombuffer(content, np.uint8)

    def _read_range(self, sample: int) -> bytes:
        size, offset = int(self.index.sizes[sample]), int(self.index.offsets[sample])
        if self._keep_open:
            return _read_all(self._descriptor(sample), size, offset)
        descriptor = os.open(self.index.path(sample), os.O_RDONLY)
        try:
            return _read_all(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def _descriptor(self, sample: int) -> int:
        file = int(self.index.file_ids[sample])
        if file not in self._open:
            opened = os.open(self.index.path(sample), os.O_RDONLY)
            if self._open.setdefault(file, opened) != opened:  # another thread was quicker
                os.close(opened)
        return self._open[file]


def _read_all(descriptor: int, size: int, offset: int) -> bytes:
    """Read up to the end of the range or of the file: some file systems return less at a time."""
    content = os.pread(descriptor, size, offset)
    while len(content) < size:
        more = os.pread(descriptor, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


class ReadAhead(AbstractContextManager["ReadAhead[T]"], Generic[T]):
    """Runs an iterator in a thread, `depth` items ahead; its errors are raised at their place."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[T | BaseException] = queue.Queue(depth)
        self._stop = Event()
        self._thread = Thread(target=self._fill, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> "ReadAhead[T]":
        return self

    def __next__(self) -> T:
        item = self._queue.get()
        if not isinstance(item, BaseException):
            return item
        self._queue.put(item)  # and again, should anybody ask again
        if isinstance(item, StopIteration):
            raise StopIteration  # a new one: its traceback keeps alive whoever asked
        try:
            raise item
        finally:
            del item  # else the error would hold this frame, and this frame the error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join()

    def _fill(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(StopIteration())
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._put(error)

    def _put(self, item: T | BaseException) -> bool:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False


def missing_files(index: Index) -> list[str]:
    """Check that each file is there and long enough; say what is wrong, a line for each fault."""
    ends = index.offsets + index.sizes
    needed = np.zeros(len(index.files), np.int64)
    np.maximum.at(needed, index.file_ids, ends)
    faults: list[str] = []
    for name, end in zip(index.files.to_pylist(), needed.tolist(), strict=True):
        path = index.root / name
        fault = _file_fault(path, end)
        if fault:
            faults.append(f"{path}: {fault}")
    return faults


def _file_fault(path: Path, end: int) -> str | None:
    try:
        size = path.stat().st_size
    except OSError as error:
        return error.strerror or str(error)
    if size < end:
        return f"has {size} bytes, but the index needs {end}: it was cut or replaced"
    return None
