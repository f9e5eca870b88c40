"""Units of reading: pieces of a source that processes read side by side, each of them once.

A unit that has been read is noted in a journal beside the index, so that after a kill only the
units that were under way are read again.
"""

import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data.indexing.progress import byte_progress
from data.indexing.workers import work_off
from pipeline.dataset.samples import Samples, digest

JOURNAL = ".unfinished"
FEW_BYTES = 32_000_000
"""Less than this is read before other processes would have started: it is not journaled either."""


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be used: its file, or archive and member, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a unit holds."""

    samples: Samples
    bad: tuple[BadImage, ...] = ()


class ReadingUnit(Protocol):
    """Some files, or a part of one; it can be pickled, as another process may read it."""

    @property
    def key(self) -> str:
        """Says what is read: of the same key come the same samples.

        It names every file with its size and time of modification, and what decides the labels.
        """
        ...

    @property
    def size(self) -> int:
        """Bytes to read."""
        ...

    def read(self) -> Found:
        """Read it all, once and in order; raise `ValueError` if its container is damaged."""
        ...


def read_units(units: Sequence[ReadingUnit], *, out: Path, workers: int) -> list[Found]:
    """Return what each unit holds, in their order; what an earlier attempt read is not read again.

    The journal stays in `out` until `forget_journal`.
    """
    total = sum(unit.size for unit in units)
    if total <= FEW_BYTES:
        return [unit.read() for unit in units]
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out / JOURNAL) as journal:
        found = {at: known for at, unit in enumerate(units) if (known := journal.find(unit))}
        already = sum(units[at].size for at in found)
        todo = [at for at in range(len(units)) if at not in found]
        workers = min(workers, len(todo))
        # In the order in which they lie; but one of more than a worker's share would end alone.
        todo.sort(key=lambda at: units[at].size * workers < total - already)
        results = work_off(_read, [units[at] for at in todo], workers=workers)
        with (
            byte_progress("reading", total=total, already=already) as advance,
            closing(results),
        ):
            for place, result in results:
                at = todo[place]
                journal.keep(units[at], result)
                found[at] = result
                advance(units[at].size)
    return [found[at] for at in range(len(units))]


def forget_journal(out: Path) -> None:
    """Remove the notes of what was read: the index holds it now."""
    (out / JOURNAL).unlink(missing_ok=True)


def keys_digest(units: Iterable[ReadingUnit]) -> str:
    """Stand for all that is to be read, in hexadecimal digits."""
    state = hashlib.sha256()
    for unit in units:
        state.update(_key_digest(unit))
    return state.hexdigest()


class Journal(AbstractContextManager["Journal"]):
    """What was read so far: a file to which each unit adds a record; a torn one counts as none.

    Raise `ValueError` if another process has it open.
    """

    BEGINNING = b"units read, format 1\n"
    HEADER = struct.Struct("<32s16sQ")
    """Digest of the unit's key; digest and length in bytes of what follows."""

    def __init__(self, path: Path) -> None:
        self._known: dict[bytes, bytes] = {}
        self._file = path.open("a+b")
        self._lock(path.parent)
        self._file.seek(0)
        if self._file.read(len(self.BEGINNING)) != self.BEGINNING:
            self._file.truncate(0)
            self._file.write(self.BEGINNING)
            self._file.seek(0, os.SEEK_END)
        whole = self._file.tell()
        while record := self._read_record():
            self._known.update([record])
            whole = self._file.tell()
        self._file.truncate(whole)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, unit: ReadingUnit) -> Found | None:
        """Return what was noted for a unit."""
        content = self._known.get(_key_digest(unit))
        if content is None:
            return None
        bad, _, samples = content.partition(b"\n")
        images = tuple(BadImage(*image) for image in json.loads(bad))
        return Found(Samples.from_bytes(samples), images)

    def keep(self, unit: ReadingUnit, found: Found) -> None:
        """Note what a unit holds."""
        bad = json.dumps([[image.path, image.reason] for image in found.bad]).encode()
        content = bad + b"\n" + found.samples.to_bytes()
        header = self.HEADER.pack(_key_digest(unit), digest(content), len(content))
        self._file.write(header + content)
        self._file.flush()

    def _lock(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ValueError(
                f"{folder} is being prepared by another process; await its end, or choose another "
                "--out"
            ) from error
        except OSError:  # this file system has no locks; records are whole or ignored anyway
            pass

    def _read_record(self) -> tuple[bytes, bytes] | None:
        header = self._file.read(self.HEADER.size)
        if len(header) < self.HEADER.size:
            return None
        key, expected, length = self.HEADER.unpack(header)
        if length > os.fstat(self._file.fileno()).st_size:
            return None
        content = self._file.read(length)
        return (key, content) if digest(content) == expected else None


def _key_digest(unit: ReadingUnit) -> bytes:
    return hashlib.sha256(unit.key.encode()).digest()


def _read(unit: ReadingUnit) -> Found:
    return unit.read()
