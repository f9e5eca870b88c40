"""Copies a dataset's files and verifies every image; a file appears only once it is complete."""

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.index import Index
from pipeline.dataset.samples import StoredFile, digest
from pipeline.storage.errors import describe_fault
from pipeline.storage.files import samples_in, size_fault
from pipeline.storage.reader import read_range

FILES_AT_ONCE = 8
PARTS_AT_ONCE = 8
PART_BYTES = 256 << 20
"""Larger files are copied and verified in parts of this size, several at once."""
BLOCK_BYTES = 8 << 20

Copied = Callable[[int], None]
"""Called from several threads with the number of bytes of each copied block."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A file to copy; it gets its final name once all of its images have been verified."""

    file: StoredFile
    source: Path
    temporary: Path
    target: Path
    holders: tuple[tuple[Index, int], ...]
    """The indexes with images in this file, each with the file's number in that index."""


class StoppedError(Exception):
    """The copy was stopped, by an error in another thread or by the user."""


class Copier:
    """Copies several files at once, and several parts of a large file at once."""

    def __init__(self, copied: Copied) -> None:
        self._copied = copied
        self._stop = Event()
        self._lock = Lock()
        self._error: Exception | None = None

    def run(self, copies: Iterator[Copy]) -> None:
        """Copy all files; after an error only complete copies remain.

        Raises `ValueError` if a source cannot be read or does not match the index, `OSError` if a
        target cannot be written.
        """
        with (
            ThreadPoolExecutor(PARTS_AT_ONCE, "stage-part") as self._parts,
            ThreadPoolExecutor(FILES_AT_ONCE, "stage-file") as files,
        ):
            work = partial(self._copy_some, copies)
            try:
                wait([files.submit(self._keep_error, work) for _ in range(FILES_AT_ONCE)])
            finally:
                self._stop.set()  # after Ctrl-C the threads stop at their next block
        if self._error:
            raise self._error

    def _keep_error(self, act: Callable[[], None]) -> None:
        try:
            act()
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            with self._lock:
                self._error = self._error or error
            self._stop.set()

    def _copy_some(self, copies: Iterator[Copy]) -> None:
        while True:
            with self._lock:
                copy = next(copies, None)
            if copy is None:
                return
            self._copy_one(copy)

    def _copy_one(self, copy: Copy) -> None:
        try:
            with (
                _opened(copy.temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as target,
                _source(copy) as source,
            ):
                self._each(partial(self._transfer, copy, source, target), _parts(copy.file.size))
                os.fsync(target)
                self._each(partial(self._verify, copy, target), _images(copy))
                os.utime(target, ns=(copy.file.mtime_ns, copy.file.mtime_ns))
            copy.target.parent.mkdir(parents=True, exist_ok=True)
            copy.temporary.replace(copy.target)
        finally:
            copy.temporary.unlink(missing_ok=True)

    def _each(self, act: Callable[..., None], pieces: list[tuple[object, ...]]) -> None:
        """Call `act` with each of the pieces; return, or raise, once all calls have ended."""
        if len(pieces) == 1:
            act(*pieces[0])
            return
        calls = [partial(act, *piece) for piece in pieces]
        wait([self._parts.submit(self._keep_error, call) for call in calls])
        self._expect_running()

    def _expect_running(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _transfer(self, copy: Copy, source: int, target: int, at: int, end: int) -> None:
        """Copy the bytes from `at` to `end`."""
        buffer = memoryview(bytearray(min(BLOCK_BYTES, end - at)))
        while at < end:
            self._expect_running()
            with _reading(copy.source):
                count = os.preadv(source, [buffer[: end - at]], at)
            if count == 0:
                raise ValueError(f"{copy.source} was truncated to {at:,} bytes while it was staged")
            _write(target, buffer[:count], at)
            at += count
            self._copied(count)

    def _verify(self, copy: Copy, target: int, index: Index, samples: NDArray[np.int64]) -> None:
        """Read images of the copy; raise `ValueError` if one does not match the index."""
        ranges = zip(index.sizes[samples].tolist(), index.offsets[samples].tolist(), strict=True)
        digests = index.digests[samples]
        for number, (size, offset) in enumerate(ranges):
            self._expect_running()
            if digest(read_range(target, size, offset)) != digests[number].tobytes():
                reason = "its bytes do not match the index"
                place = describe_fault(index, int(samples[number]), reason)
                raise ValueError(
                    f"{place}; download {copy.source} again, prepare the dataset again, or train"
                    " without data.stage"
                )


def _parts(size: int) -> list[tuple[object, ...]]:
    starts = range(0, max(1, size), PART_BYTES)
    return [(start, min(size, start + PART_BYTES)) for start in starts]


def _images(copy: Copy) -> list[tuple[object, ...]]:
    """Divide the images of a file into parts, in the order in which they are stored."""
    pieces = len(_parts(copy.file.size))
    return [
        (index, some)
        for index, number in copy.holders
        for some in np.array_split(samples_in(index, number), pieces)
    ]


@contextmanager
def _opened(path: Path, flags: int) -> Generator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _source(copy: Copy) -> Generator[int]:
    with _reading(copy.source):
        descriptor = os.open(copy.source, os.O_RDONLY)
    try:
        with _reading(copy.source):
            size = os.fstat(descriptor).st_size
        fault = size_fault(size, copy.file.size)
        if fault:
            raise ValueError(f"{copy.source}: {fault}")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _reading(source: Path) -> Generator[None]:
    """Turn an `OSError` about the source into a `ValueError`, unlike one about the target."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{source} cannot be read to stage it ({error.strerror}); make it readable, or set"
            " data.root to the folder of the images"
        ) from error


def _write(target: int, content: memoryview, at: int) -> None:
    while content:
        count = os.pwrite(target, content, at)
        content, at = content[count:], at + count
