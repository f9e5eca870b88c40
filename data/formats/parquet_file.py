"""Parquet files of images: their footers, and their rows read one after the other.

An image is a struct with a field `bytes`, a label is a whole number: the layout of Hugging Face.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pydantic import TypeAdapter

from pipeline.dataset.samples import file_state

pa: Any = pyarrow  # it ships no types

ROWS_A_BATCH = 64
READ_AHEAD = 1 << 20
"""Bytes of a column read at a time: a page has to fit in memory, a row group does not."""
VERBATIM = frozenset({"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"})
"""Encodings that keep values as they are; the last two are for levels and dictionary indices."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns to read."""

    image: str
    label: str


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that are stored together; `first_row` counts from the file's first, which is 0."""

    number: int
    first_row: int
    rows: int
    start: int
    """Where the column chunk of the images begins in the file."""
    size: int
    """Bytes of that chunk as stored."""
    content_size: int
    """Bytes of that chunk before compression."""


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A file as it was when it was inspected, and the columns to read."""

    path: Path
    size: int
    mtime_ns: int
    columns: Columns


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of a file says."""

    file: ParquetFile
    row_groups: tuple[RowGroup, ...]
    """The row groups that have rows."""
    class_names: tuple[str, ...] | None
    obstacle: str
    """How the stored images differ from the originals (compressed, say); empty if they do not."""


class Row(NamedTuple):
    """One image with its label; `number` counts from the file's first row, which is 0."""

    number: int
    content: bytes
    label: int


def inspect(path: Path, columns: Columns) -> Footer:
    """Read the footer of a file.

    Raises `ValueError` if this is not a complete Parquet file, or if a column is missing or has
    another type.
    """
    size, mtime_ns = file_state(path)
    with _open(path) as opened:
        schema, metadata = opened.schema_arrow, opened.metadata
        _check_columns(path, columns, schema)
        names = _class_names(schema.metadata or {}, columns.label)
        leaf = f"{columns.image}.bytes"
        row_groups: list[RowGroup] = []
        obstacle = ""
        first_row = 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunk = _chunk(group, leaf)
            if group.num_rows:
                row_groups.append(_row_group(number, first_row, group.num_rows, chunk))
                obstacle = obstacle or _obstacle(chunk)
            first_row += group.num_rows
    file = ParquetFile(path, size, mtime_ns, columns)
    return Footer(file, tuple(row_groups), names, obstacle)


def read_rows(file: ParquetFile, groups: Sequence[RowGroup], *, labels: int) -> Iterator[Row]:
    """Yield the rows of some row groups in order, with few images in memory at a time.

    Raises `ValueError` if the file is damaged or has changed since it was inspected, if an image
    is not in it, or if a label is not in 0..`labels` - 1.
    """
    _check_unchanged(file)
    with _open(file.path) as opened:
        for group in groups:
            number = group.first_row
            for batch in opened.iter_batches(
                ROWS_A_BATCH,
                row_groups=[group.number],
                columns=[file.columns.image, file.columns.label],
                use_threads=False,  # units are read in parallel
            ):
                yield from _rows(file, batch, number, labels)
                number += batch.num_rows
    _check_unchanged(file)


def _rows(file: ParquetFile, batch: Any, number: int, limit: int) -> Iterator[Row]:
    compute: Any = import_module("pyarrow.compute")
    image = batch.column(file.columns.image)
    contents: list[bytes | None] = compute.struct_field(image, "bytes").to_pylist()
    labels: list[int | None] = batch.column(file.columns.label).to_pylist()
    for at, (content, label) in enumerate(zip(contents, labels, strict=True)):
        place = f"{file.path}, row {number + at}"
        if content is None:
            raise ValueError(f"{place}: {_absent(file.columns.image, image[at].as_py())}")
        yield Row(number + at, content, _checked(label, limit, f"{place}: {file.columns.label}"))


def _absent(column: str, image: dict[str, Any] | None) -> str:
    if image is None:
        return f"{column} is null; write the file again without such rows"
    elsewhere = f", the image is in {image['path']!r}" if image.get("path") else ""
    return f"{column}.bytes is null{elsewhere}; write the file again with the images embedded"


def _checked(label: int | None, limit: int, place: str) -> int:
    if label is None or label < 0:
        value = "null" if label is None else f"{label}, which means unlabelled"
        raise ValueError(f"{place} is {value}; give files in which every image has a label")
    if label >= limit:
        remedy = "give the id of every class with --classes FILE"
        raise ValueError(f"{place} is {label}, not in 0..{limit - 1}; {remedy}")
    return label


def _check_unchanged(file: ParquetFile) -> None:
    if file_state(file.path) != (file.size, file.mtime_ns):
        raise ValueError(f"{file.path} changed while it was being read; prepare it again")


@contextmanager
def _open(path: Path) -> Generator[Any]:
    """Open a file, and turn every error about its content into one `ValueError`."""
    parquet: Any = import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, buffer_size=READ_AHEAD, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # not a content error: perhaps no permission to read the file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} is not a complete Parquet file ({reason}); fetch it again"
        ) from error


def _check_columns(path: Path, columns: Columns, schema: Any) -> None:
    image = _type(path, columns.image, "--image-column", schema)
    if not (pa.types.is_struct(image) and _is_binary(image)):
        wanted = "a struct with a field `bytes` of type binary"
        raise ValueError(_mistyped(path, columns.image, image, wanted, "--image-column"))
    label = _type(path, columns.label, "--label-column", schema)
    if not pa.types.is_integer(label):
        raise ValueError(_mistyped(path, columns.label, label, "whole numbers", "--label-column"))


def _type(path: Path, column: str, option: str, schema: Any) -> Any:
    places = schema.get_all_field_indices(column)
    if len(places) != 1:
        fault = f"{len(places)} columns {column!r}" if places else f"no column {column!r}"
        raise ValueError(
            f"{path} has {fault} (it has {', '.join(schema.names)}); name another with {option}"
        )
    return schema.field(places[0]).type


def _is_binary(image: Any) -> bool:
    at = image.get_field_index("bytes")
    kinds = (pa.types.is_binary, pa.types.is_large_binary)
    return at >= 0 and any(is_kind(image.field(at).type) for is_kind in kinds)


def _mistyped(path: Path, column: str, found: Any, wanted: str, option: str) -> str:
    return f"{path}: column {column!r} is {found}, not {wanted}; name another with {option}"


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Return the class names in the metadata of Hugging Face, if any."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label]
        if feature["_type"] != "ClassLabel":
            return None
        return TypeAdapter(tuple[str, ...]).validate_python(feature["names"]) or None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _chunk(group: Any, leaf: str) -> Any:
    chunks = (group.column(number) for number in range(group.num_columns))
    return next(chunk for chunk in chunks if chunk.path_in_schema == leaf)


def _row_group(number: int, first_row: int, rows: int, chunk: Any) -> RowGroup:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    stored, content = chunk.total_compressed_size, chunk.total_uncompressed_size
    return RowGroup(number, first_row, rows, start, stored, content)


def _obstacle(chunk: Any) -> str:
    if chunk.compression != "UNCOMPRESSED":
        return f"compressed ({chunk.compression})"
    others = sorted(set(chunk.encodings) - VERBATIM)
    return f"encoded ({', '.join(others)})" if others else ""
