"""The journal of a preparation: the content of each unit read so far.

It is beside the index. After a kill, only the units that were being read are read again.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from data.indexing.unit import BadImage, ReadingUnit, UnitContent
from pipeline.dataset.samples import Samples, digest
from pipeline.system.locks import lock_file

JOURNAL = ".unfinished"


def forget_journal(out: Path) -> None:
    """Remove the journal in `out`, once the index has its content."""
    (out / JOURNAL).unlink(missing_ok=True)


def keys_digest(units: Iterable[ReadingUnit]) -> str:
    """Return a digest of everything to be read, in hexadecimal digits."""
    state = hashlib.sha256()
    for unit in units:
        state.update(_key_digest(unit))
    return state.hexdigest()


class Journal(AbstractContextManager["Journal"]):
    """A file with a record for each unit; a record that is torn or damaged is ignored.

    Raises `ValueError` if another process has it open.
    """

    BEGINNING = b"units read, format 2\n"
    HEADER = struct.Struct("<32s16sQ")
    """Digest of the unit's key; digest and length in bytes of the rest of the record."""

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

    def find(self, unit: ReadingUnit) -> UnitContent | None:
        """Return the content of a unit; None if it is not in the journal."""
        record = self._known.get(_key_digest(unit))
        if record is None:
            return None
        other, _, samples = record.partition(b"\n")
        bad, ignored = json.loads(other)
        images = tuple(BadImage(*image) for image in bad)
        return UnitContent(Samples.from_bytes(samples), images, ignored)

    def keep(self, unit: ReadingUnit, content: UnitContent) -> None:
        """Append the content of a unit."""
        bad = [[image.path, image.reason] for image in content.bad]
        other = json.dumps([bad, dict(content.ignored)]).encode()
        record = other + b"\n" + content.samples.to_bytes()
        header = self.HEADER.pack(_key_digest(unit), digest(record), len(record))
        self._file.write(header + record)
        self._file.flush()

    def _lock(self, folder: Path) -> None:
        try:
            locked = lock_file(self._file)
        except OSError:  # this file system has no locks; records are whole or ignored anyway
            return
        if not locked:
            self._file.close()
            raise ValueError(
                f"{folder} is being prepared by another process; wait until it ends, or choose"
                " another --out"
            )

    def _read_record(self) -> tuple[bytes, bytes] | None:
        header = self._file.read(self.HEADER.size)
        if len(header) < self.HEADER.size:
            return None
        key, expected, length = self.HEADER.unpack(header)
        if length > os.fstat(self._file.fileno()).st_size:
            return None
        record = self._file.read(length)
        return (key, record) if digest(record) == expected else None


def _key_digest(unit: ReadingUnit) -> bytes:
    return hashlib.sha256(unit.key.encode()).digest()
