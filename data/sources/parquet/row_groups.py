"""Row groups of Parquet files as units of reading: indexed in place, or copied to a tar."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.formats.image_header import image_size
from data.formats.parquet_file import ParquetFile, Row, RowGroup, read_rows
from data.formats.parquet_values import ValueFinder
from data.indexing.reading import LABEL_LIMIT
from data.indexing.unit import BadImage, UnitContent
from data.indexing.written_images import IMAGES
from data.sources.parquet.copies import member_name, open_copy
from pipeline.dataset.samples import Sample, StoredFile, collect, digest, file_state


@dataclass(frozen=True, slots=True)
class RowGroupUnit:
    """A row group whose images are indexed in place."""

    file: ParquetFile
    name: str
    """The path of the file, relative to the root of the dataset."""
    group: RowGroup
    classes: int | None
    """The number of classes, if it is known in advance."""

    @property
    def key(self) -> str:
        """See `ReadingUnit`."""
        state = _state(self.file, self.classes)
        return json.dumps(["Parquet row group", self.group.number, self.name, *state])

    @property
    def size(self) -> int:
        """See `ReadingUnit`."""
        return self.group.size

    def read(self) -> UnitContent:
        """Read every image and find its offset; those that cannot be used are listed as bad."""
        results: list[Sample | BadImage] = []
        with _descriptor(self.file.path) as opened:
            finder = ValueFinder(opened, start=self.group.start, size=self.group.size)
            for row in read_rows(self.file, [self.group], labels=self.classes or LABEL_LIMIT):
                offset = finder.find(row.content)
                if offset is None:
                    raise ValueError(_unfindable(row, self.file))
                results.append(_sample(row, self.file, name=self.name, offset=offset))
        return _content(results, StoredFile(self.name, self.file.size, self.file.mtime_ns))


@dataclass(frozen=True, slots=True)
class CopiedFileUnit:
    """A file whose images are copied to a tar, in the order of its rows."""

    file: ParquetFile
    row_groups: tuple[RowGroup, ...]
    out: Path
    copy: str
    """The path of the tar, relative to `out/images`."""
    name: str
    """The path of the tar, relative to the root of the dataset."""
    classes: int | None
    """The number of classes, if it is known in advance."""
    replace: bool = False
    """Whether the tar may replace one of another dataset."""

    @property
    def key(self) -> str:
        """See `ReadingUnit`; the key changes if the tar is missing or has changed."""
        copy = self.out / IMAGES / self.copy
        copied = file_state(copy) if copy.exists() else None
        state = _state(self.file, self.classes)
        return json.dumps(["Parquet file, copied", self.name, copied, *state])

    @property
    def size(self) -> int:
        """See `ReadingUnit`."""
        return sum(group.size for group in self.row_groups)

    def read(self) -> UnitContent:
        """Copy every image; those that cannot be used are listed as bad."""
        results: list[Sample | BadImage] = []
        with open_copy(self.out, self.copy, replace=self.replace) as tar:
            for row in read_rows(self.file, self.row_groups, labels=self.classes or LABEL_LIMIT):
                offset = tar.add(member_name(row.number, row.content), row.content)
                results.append(_sample(row, self.file, name=self.name, offset=offset))
        copied = file_state(self.out / IMAGES / self.copy)
        return _content(results, StoredFile(self.name, *copied))


def _state(file: ParquetFile, classes: int | None) -> list[object]:
    columns = file.columns
    return [str(file.path), file.size, file.mtime_ns, columns.image, columns.label, classes]


def _sample(row: Row, file: ParquetFile, *, name: str, offset: int) -> Sample | BadImage:
    try:
        width, height = image_size(row.content)
    except ValueError as error:
        return BadImage(f"{file.path}, row {row.number}", str(error))
    size = len(row.content)
    return Sample(name, offset, size, row.label, width, height, digest(row.content))


def _content(results: Sequence[Sample | BadImage], stored: StoredFile) -> UnitContent:
    samples = [result for result in results if isinstance(result, Sample)]
    bad = tuple(result for result in results if isinstance(result, BadImage))
    return UnitContent(collect(samples, [stored]), bad)


def _unfindable(row: Row, file: ParquetFile) -> str:
    column = f"{file.columns.image}.bytes"
    return (
        f"{file.path}, row {row.number}: the image is not in the file byte for byte, although"
        f" {column} is neither compressed nor encoded; write the file again with pyarrow"
    )


@contextmanager
def _descriptor(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
