"""Reads the bytes of samples from disk, ahead of their use, in a few threads."""

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
from pipeline.dataset.samples import digest
from pipeline.storage.open_files import OpenFiles, grant_open_files

T = TypeVar("T")
Content = NDArray[np.uint8]

SAMPLES_OF_AN_ARCHIVE = 2
"""Files with fewer samples than this, on average, are closed again after each read."""


class ContentError(OSError):
    """The bytes read do not match the indexed image."""


class SampleReader(AbstractContextManager["SampleReader"]):
    """Reads the stored bytes of samples of one index; thread-safe."""

    def __init__(self, index: Index, threads: int) -> None:
        self.index = index
        self._pool = ThreadPoolExecutor(threads, "read")
        archives = len(index) >= SAMPLES_OF_AN_ARCHIVE * len(index.files)
        self._files = OpenFiles(self._path, grant_open_files(len(index.files)) if archives else 0)

    def read(self, samples: NDArray[np.int64]) -> list[Content | OSError]:
        """Return the bytes of each sample, or the error if they do not match the index."""
        return list(self._pool.map(self._read_one, samples.tolist()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        self._files.close()

    def _path(self, file: int) -> Path:
        return self.index.root / self.index.files[file].as_py()

    def _read_one(self, sample: int) -> Content | OSError:
        size, offset = int(self.index.sizes[sample]), int(self.index.offsets[sample])
        try:
            with self._files.lend(int(self.index.file_ids[sample])) as descriptor:
                content = read_range(descriptor, size, offset)
        except OSError as error:
            return error
        if len(content) < size:
            return OSError(f"the file ends after {len(content)} of its {size} bytes")
        if size == 0:
            return OSError("the image is empty")
        if digest(content) != self.index.digests[sample].tobytes():
            return ContentError(
                "its bytes do not match the index: the file changed, or the disk returned"
                " wrong data"
            )
        return np.frombuffer(content, np.uint8)


def read_range(descriptor: int, size: int, offset: int) -> bytes:
    """Read to the end of the range or of the file; some file systems return less per call."""
    content = os.pread(descriptor, size, offset)
    while len(content) < size:
        more = os.pread(descriptor, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


class ReadAhead(AbstractContextManager["ReadAhead[T]"], Generic[T]):
    """Runs an iterator in a thread, `depth` items ahead, and raises its errors in order."""

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
        self._queue.put(item)  # raise it again on the next call
        if isinstance(item, StopIteration):
            raise StopIteration  # a new one: a reused traceback would keep callers alive
        try:
            raise item
        finally:
            del item  # breaks the reference cycle between the error and this frame

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
