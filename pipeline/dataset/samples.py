"""Samples by column: where each image is, its label, its size and its digest.

A dataset may have a hundred million samples, so they are arrays from the moment they are read until
they are memory-mapped again. A `Sample` is one row, for code that has few of them.
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

pa: Any = pyarrow  # it has no type hints

DIGEST_BYTES = 16
COLUMNS: Mapping[str, np.dtype[Any]] = {
    "file": np.dtype(np.int32),
    "offset": np.dtype(np.int64),
    "size": np.dtype(np.int64),
    "label": np.dtype(np.int32),
    "width": np.dtype(np.int32),
    "height": np.dtype(np.int32),
}
"""The numbers of a sample; `file` is an index into the table of files."""
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.from_numpy_dtype(kind), False) for name, kind in COLUMNS.items()),
        pa.field("digest", pa.binary(DIGEST_BYTES), False),
    ]
)
FILES = b"files"
"""Metadata key of the files, in samples that are serialised on their own."""


def digest(content: bytes | memoryview) -> bytes:
    """Return the XXH3-128 digest of an image's content: 16 bytes.

    It is 30 times as fast as SHA-256, so an image can be checked each time it is read. It detects
    accidental damage, not images that were forged on purpose.
    """
    return xxhash.xxh3_128_digest(content)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image on disk; `width` and `height` are in pixels, as stored."""

    file: str
    offset: int
    size: int
    label: int
    width: int
    height: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that contains samples, in its state when indexed; `name` is relative to the root."""

    name: str
    size: int
    mtime_ns: int


def file_state(path: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in ns; raises `OSError` if it is missing."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Samples:
    """n samples: the columns of `COLUMNS`, each of shape (n,), and digests, uint8 of (n, 16)."""

    files: tuple[StoredFile, ...]
    columns: Mapping[str, NDArray[Any]]
    digests: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def labels(self) -> NDArray[np.int32]:
        return self.columns["label"]

    def only(self, kept: NDArray[np.bool_]) -> "Samples":
        """Return the samples where `kept`, bool of shape (n,), is true."""
        columns = {name: values[kept] for name, values in self.columns.items()}
        return Samples(self.files, columns, self.digests[kept])

    def table(self) -> Any:
        """Return a pyarrow Table of `SCHEMA`, without the files' names."""
        arrays = [as_arrow(self.columns[name], SCHEMA.field(name).type) for name in COLUMNS]
        digests = as_arrow(self.digests, SCHEMA.field("digest").type)
        return pa.Table.from_arrays([*arrays, digests], schema=SCHEMA)

    def to_bytes(self) -> bytes:
        """Serialise the samples and their files into one Arrow stream."""
        files = [[file.name, file.size, file.mtime_ns] for file in self.files]
        table = self.table().replace_schema_metadata({FILES: json.dumps(files)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @staticmethod
    def from_bytes(content: bytes) -> "Samples":
        """Read what `to_bytes` wrote; raises `ValueError` or pyarrow's error if it is damaged."""
        table = pa.ipc.open_stream(content).read_all()
        if not table.schema.equals(SCHEMA):
            raise ValueError("not a table of samples")
        files = tuple(StoredFile(*file) for file in json.loads(table.schema.metadata[FILES]))
        table = table.combine_chunks()
        columns = {name: as_numpy(table, name).view(kind) for name, kind in COLUMNS.items()}
        return Samples(files, columns, as_numpy(table, "digest").reshape(-1, DIGEST_BYTES))


def collect(rows: Sequence[Sample], files: Iterable[StoredFile]) -> Samples:
    """Return rows as columns; `files` has at least the files of the rows."""
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
    """Join samples; a file that occurs in several parts is kept once."""
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
    """Return numbers as a pyarrow array without a copy; pa.array() would import pandas."""
    return pa.Array.from_buffers(
        kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def as_numpy(table: Any, name: str) -> NDArray[np.uint8]:
    """View the bytes of a column, without a copy; the table has one chunk."""
    array = chunk(table, name)
    _validity, data = array.buffers()
    width = array.type.bit_width // 8
    if data is None:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8, len(array) * width, array.offset * width)


def chunk(table: Any, name: str) -> Any:
    """Return a column of a table that has one chunk."""
    column = table.column(name)
    assert column.num_chunks <= 1, "an index is written as one record batch"
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
