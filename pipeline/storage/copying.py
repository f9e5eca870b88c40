"""Copies of a dataset's files: each of them whole, proved image by image, or not there."""

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
"""Larger files are copied, and then read, in parts of this size at once."""
BLOCK_BYTES = 8 << 20

Copied = Callable[[int], None]
"""Called with the bytes of each block that was copied, from several threads."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A file to copy; it has its last name once each of its images has been read and proved."""

    file: StoredFile
    source: Path
    temporary: Path
    target: Path
    holders: tuple[tuple[Index, int], ...]
    """The indexes whose images lie in this file, each with the number that the file has there."""


class StoppedError(Exception):
    """Something else went wrong, or the person lost patience."""


class Copier:
    """Copies files, several at once, and large ones in several parts at once."""

    def __init__(self, copied: Copied) -> None:
        self._copied = copied
        self._stop = Event()
        self._lock = Lock()
        self._error: Exception | None = None

    def run(self, copies: Iterator[Copy]) -> None:
        """Copy them all; after an error, what is whole is there and nothing else is.

        Raise `ValueError` for a source that cannot be read or is not what was indexed, `OSError`
        for a target that cannot be written.
        """
        with (
            ThreadPoolExecutor(PARTS_AT_ONCE, "stage-part") as self._parts,
            ThreadPoolExecutor(FILES_AT_ONCE, "stage-file") as files,
        ):
            work = partial(self._copy_some, copies)
            try:
                wait([files.submit(self._noting_errors, work) for _ in range(FILES_AT_ONCE)])
            finally:
                self._stop.set()  # after Ctrl-C the threads end at their next block
        if self._error:
            raise self._error

    def _noting_errors(self, act: Callable[[], None]) -> None:
        try:
            act()
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001 - raised again in the thread of `run`
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
                self._each(partial(self._prove, copy, target), _images(copy))
                os.utime(target, ns=(copy.file.mtime_ns, copy.file.mtime_ns))
            copy.target.parent.mkdir(parents=True, exist_ok=True)
            copy.temporary.replace(copy.target)
        finally:
            copy.temporary.unlink(missing_ok=True)

    def _each(self, act: Callable[..., None], pieces: list[tuple[object, ...]]) -> None:
        """Call `act` with each of the pieces; return, or raise, when nobody is at it any more."""
        if len(pieces) == 1:
            act(*pieces[0])
            return
        calls = [partial(act, *piece) for piece in pieces]
        wait([self._parts.submit(self._noting_errors, call) for call in calls])
        self._go_on()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _transfer(self, copy: Copy, source: int, target: int, at: int, end: int) -> None:
        """Copy the bytes from `at` to `end`."""
        buffer = memoryview(bytearray(min(BLOCK_BYTES, end - at)))
        while at < end:
            self._go_on()
            with _reading(copy.source):
                count = os.preadv(source, [buffer[: end - at]], at)
            if count == 0:
                raise ValueError(f"{copy.source} ended at byte {at:,} while it was staged")
            _write(target, buffer[:count], at)
            at += count
            self._copied(count)

    def _prove(self, copy: Copy, target: int, index: Index, samples: NDArray[np.int64]) -> None:
        """Read images of the copy, and raise `ValueError` if one is not what was indexed."""
        ranges = zip(index.sizes[samples].tolist(), index.offsets[samples].tolist(), strict=True)
        digests = index.digests[samples]
        for number, (size, offset) in enumerate(ranges):
            self._go_on()
            if digest(read_range(target, size, offset)) != digests[number].tobytes():
                reason = "its bytes are not those that were indexed"
                place = describe_fault(index, int(samples[number]), reason)
                raise ValueError(
                    f"{place}: {copy.source} is not staged; fetch it again, prepare the dataset"
                    " again, or train without data.stage"
                )


def _parts(size: int) -> list[tuple[object, ...]]:
    starts = range(0, max(1, size), PART_BYTES)
    return [(start, min(size, start + PART_BYTES)) for start in starts]


def _images(copy: Copy) -> list[tuple[object, ...]]:
    """Share out the images of a file, in the order in which they lie in it."""
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
    """Turn an `OSError` about a source into a `ValueError`: one about a target stays what it is."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{source} cannot be read to be staged ({error.strerror}); see to it that it can, or"
            " set data.root to where the images lie"
        ) from error


def _write(target: int, content: memoryview, at: int) -> None:
    while content:
        count = os.pwrite(target, content, at)
        content, at = content[count:], at + count
