"""Samples by column: where each image lies, what it shows, how large it is and what it contains.

A dataset may have a hundred million of them, so they are arrays from the moment they are read to
the moment they are mapped into memory again; a `Sample` is one row, for those who have few.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import xxhash
from numpy.typing import NDArray

pa: Any = pyarrow  # it ships no types

DIGEST_BYTES = 16
COLUMNS: Mapping[str, np.dtype[Any]] = {
    "file": np.dtype(np.int32),
    "offset": np.dtype(np.int64),
    "size": np.dtype(np.int64),
    "label": np.dtype(np.int32),
    "width": np.dtype(np.int32),
    "height": np.dtype(np.int32),
}
"""The numbers of a sample; `file` is its file's place in the table of files."""
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.from_numpy_dtype(kind), False) for name, kind in COLUMNS.items()),
        pa.field("digest", pa.binary(DIGEST_BYTES), False),
    ]
)
FILES = b"files"
"""Key of the files in the metadata of samples that stand alone."""


def digest(content: bytes | memoryview) -> bytes:
    """The 16 bytes that stand for an image's content: its XXH3-128.

    It tells every accident, at 30 times the speed of SHA-256, so that an image can be checked each
    time it is read; it is no proof against somebody who makes images to deceive.
    """
    return xxhash.xxh3_128_digest(content)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as it lies on disk; `width` and `height` are of the pixels as stored."""

    file: str
    offset: int
    size: int
    label: int
    width: int
    height: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that samples lie in, as it was when they were read; `name` is below the root."""

    name: str
    size: int
    mtime_ns: int


def file_state(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of modification in ns; raise `OSError` if it is not there."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Samples:
    """n samples; `columns` are those of `COLUMNS`, `digests` is uint8 of shape (n, 16)."""

    files: tuple[StoredFile, ...]
    columns: Mapping[str, NDArray[Any]]
    digests: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def labels(self) -> NDArray[np.int32]:
        return self.columns["label"]

    def table(self) -> Any:
        """Return a pyarrow Table of `SCHEMA`, which names the files by their numbers only."""
        arrays = [as_arrow(self.columns[name], SCHEMA.field(name).type) for name in COLUMNS]
        digests = as_arrow(self.digests, SCHEMA.field("digest").type)
        return pa.Table.from_arrays([*arrays, digests], schema=SCHEMA)

    def to_bytes(self) -> bytes:
        """Return all of it, files included, as one Arrow stream."""
        files = [[file.name, file.size, file.mtime_ns] for file in self.files]
        table = self.table().replace_schema_metadata({FILES: json.dumps(files)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @staticmethod
    def from_bytes(content: bytes) -> "Samples":
        """Read what `to_bytes` wrote; raise `ValueError` or pyarrow's error if it is damaged."""
        table = pa.ipc.open_stream(content).read_all()
        if not table.schema.equals(SCHEMA):
            raise ValueError("these are no samples")
        files = tuple(StoredFile(*file) for file in json.loads(table.schema.metadata[FILES]))
        table = table.combine_chunks()
        columns = {name: as_numpy(table, name).view(kind) for name, kind in COLUMNS.items()}
        return Samples(files, columns, as_numpy(table, "digest").reshape(-1, DIGEST_BYTES))


def collect(rows: Sequence[Sample], files: Iterable[StoredFile]) -> Samples:
    """Return rows as columns; `files` holds at least the files that they name."""
    kept = tuple(files)
    numbers = {file.name: number for number, file in enumerate(kept)}
    columns = {
        name: np.array([getattr(row, name) for row in rows], kind)
        for name, kind in COLUMNS.items()
        if name != "file"
    }
    columns["file"] = np.array([numbers[row.file] for row in rows], COLUMNS["file"])
    joined = b"".join(row.digest for row in rows)
    return Samples(kept, columns, np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES))


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Join samples; a file that several parts name is one file."""
    numbers: dict[str, int] = {}
    files: list[StoredFile] = []
    for file in (file for part in parts for file in part.files):
        if numbers.setdefault(file.name, len(files)) == len(files):
            files.append(file)
    columns = {
        name: np.concatenate([np.empty(0, kind), *(part.columns[name] for part in parts)])
        for name, kind in COLUMNS.items()
        if name != "file"
    }
    renumbered = [
        np.array([numbers[file.name] for file in part.files], np.int32)[part.columns["file"]]
        for part in parts
    ]
    columns["file"] = np.concatenate([np.empty(0, np.int32), *renumbered])
    nothing = np.empty((0, DIGEST_BYTES), np.uint8)
    return Samples(
        tuple(files), columns, np.concatenate([nothing, *(part.digests for part in parts)])
    )


def as_arrow(values: NDArray[Any], kind: Any) -> Any:
    """Return numbers as a pyarrow array without a copy (pyarrow's own way would load pandas)."""
    return pa.Array.from_buffers(
        kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def as_numpy(table: Any, name: str) -> NDArray[np.uint8]:
    """View the bytes of a column of a table of one chunk, without a copy."""
    array = chunk(table, name)
    _validity, data = array.buffers()
    width = array.type.bit_width // 8
    if data is None:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8, len(array) * width, array.offset * width)


def chunk(table: Any, name: str) -> Any:
    """Return a column of a table that consists of one chunk."""
    column = table.column(name)
    assert column.num_chunks <= 1, "an index is written as one record batch"
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
