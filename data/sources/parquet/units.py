"""Units of reading of Parquet files: a row group whose images stay, a file whose are copied."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.formats.image_header import image_size
from data.formats.parquet_file import ParquetFile, Row, RowGroup, read_rows
from data.formats.parquet_values import ValueFinder
from data.indexing.store import IMAGES
from data.indexing.units import BadImage, Found
from data.sources.parquet.shard import open_shard
from pipeline.dataset.samples import Sample, StoredFile, collect, digest, file_state


@dataclass(frozen=True, slots=True)
class RowGroupUnit:
    """A row group whose images are indexed where they lie."""

    file: ParquetFile
    name: str
    """The file's path below the dataset's root."""
    group: RowGroup
    classes: int | None
    """How many there are, if that is known before."""

    @property
    def key(self) -> str:
        """See `Unit`."""
        said = _said_of(self.file, self.classes)
        return json.dumps(["Parquet row group", self.group.number, self.name, *said])

    @property
    def size(self) -> int:
        """See `Unit`."""
        return self.group.size

    def read(self) -> Found:
        """Read every image and find its place; one that is no image is bad, and no error."""
        results: list[Sample | BadImage] = []
        with _descriptor(self.file.path) as opened:
            finder = ValueFinder(opened, start=self.group.start, size=self.group.size)
            for row in read_rows(self.file, [self.group], classes=self.classes):
                offset = finder.find(row.content)
                if offset is None:
                    raise ValueError(_unfindable(row, self.file))
                results.append(_sample(row, self.file, name=self.name, offset=offset))
        return _found(results, StoredFile(self.name, self.file.size, self.file.mtime_ns))


@dataclass(frozen=True, slots=True)
class CopiedFileUnit:
    """A file whose images are copied, in the order of its rows, to a tar shard."""

    file: ParquetFile
    row_groups: tuple[RowGroup, ...]
    out: Path
    shard: str
    """Path of the shard below `out/images`."""
    name: str
    """The shard's path below the dataset's root."""
    classes: int | None
    """How many there are, if that is known before."""

    @property
    def key(self) -> str:
        """See `Unit`; of a shard that is gone or was changed, nothing that is noted holds."""
        said = _said_of(self.file, self.classes)
        shard = self.out / IMAGES / self.shard
        state = file_state(shard) if shard.exists() else None
        return json.dumps(["Parquet file, copied", self.name, state, *said])

    @property
    def size(self) -> int:
        """See `Unit`."""
        return sum(group.size for group in self.row_groups)

    def read(self) -> Found:
        """Copy every image; one that is no image is bad, and no error."""
        results: list[Sample | BadImage] = []
        with open_shard(self.out, self.shard) as shard:
            for row in read_rows(self.file, self.row_groups, classes=self.classes):
                offset = shard.add(row.number, row.content)
                results.append(_sample(row, self.file, name=self.name, offset=offset))
        state = file_state(self.out / IMAGES / self.shard)
        return _found(results, StoredFile(self.name, *state))


def _said_of(file: ParquetFile, classes: int | None) -> list[object]:
    columns = file.columns
    return [str(file.path), file.size, file.mtime_ns, columns.image, columns.label, classes]


def _sample(row: Row, file: ParquetFile, *, name: str, offset: int) -> Sample | BadImage:
    try:
        width, height = image_size(row.content)
    except ValueError as error:
        return BadImage(f"{file.path}, row {row.number}", str(error))
    size = len(row.content)
    return Sample(name, offset, size, row.label, width, height, digest(row.content))


def _found(results: Sequence[Sample | BadImage], stored: StoredFile) -> Found:
    samples = [result for result in results if isinstance(result, Sample)]
    bad = tuple(result for result in results if isinstance(result, BadImage))
    return Found(collect(samples, [stored]), bad)


def _unfindable(row: Row, file: ParquetFile) -> str:
    column = f"{file.columns.image}.bytes"
    return (
        f"{file.path}, row {row.number}: the image does not lie in the file as it is, though "
        f"{column} is said to be neither compressed nor encoded; write the file again with pyarrow"
    )


@contextmanager
def _descriptor(path: Path) -> Generator[int, None, None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
