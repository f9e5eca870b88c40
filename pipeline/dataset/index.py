"""The index of a dataset: for each sample its file, byte range, label, size in pixels and digest.

A dataset is a folder with `manifest.json` and two memory-mapped Arrow files for each split: its
samples, and the files that contain them. Images stay where they are: whole files, or byte ranges
inside archives. Samples are sorted by (label, digest), so the same images give the same index,
whatever archives they are in.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow
import xxhash
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from pipeline.dataset.samples import DIGEST_BYTES, SCHEMA, as_numpy, chunk
from pipeline.system.command import command_line, plural

pa: Any = pyarrow  # it has no type hints

Number = TypeVar("Number", np.int32, np.int64)

MANIFEST = "manifest.json"
MOST_AT_ONCE = 1_000_000
"""Samples that are compared at a time, so that opening an index takes little memory."""
FORMAT = 2
SPLIT_SCHEMA = SCHEMA.append(pa.field("stored", pa.int64(), False))
"""Row k of `stored` is the k-th sample on disk, in the order of (file, offset)."""
FILES_SCHEMA = pa.schema(
    [
        pa.field("name", pa.large_string(), False),
        pa.field("size", pa.int64(), False),
        pa.field("mtime_ns", pa.int64(), False),
    ]
)
"""The files of a split, sorted by name."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a dataset; `root` is absolute, or relative to the manifest's folder."""

    name: str
    classes: tuple[str, ...]
    """The meaning of each label: a WordNet id, or the name of a folder."""
    samples: dict[str, int]
    """Number of samples of each split."""
    fingerprint: str
    """SHA-256 of the labels and digests of all splits. It depends on the images and their labels,
    not on archives and class names."""
    root: str
    checksums: dict[str, str]
    """XXH3-128 of each Arrow file, in hexadecimal."""
    class_names: tuple[str, ...] = ()
    """The classes in words, if known."""
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the dataset was prepared from. Preparing the same again does nothing."""
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    """The arguments that it was prepared with. The same arguments may replace it."""
    format: int = FORMAT


def split_files(split: str) -> tuple[str, str]:
    """Return the names of a split's Arrow files: its samples, and the files that contain them."""
    return f"{split}.arrow", f"{split}.files.arrow"


@dataclass(frozen=True)
class Index:
    """One split, memory-mapped: all processes that open it share its pages."""

    split: str
    root: Path
    manifest: Manifest
    table: Any
    """A pyarrow Table of `SPLIT_SCHEMA`."""
    file_table: Any
    """A pyarrow Table of `FILES_SCHEMA`."""

    @staticmethod
    def open(folder: Path, split: str, root: Path | None = None) -> "Index":
        """Open one split; raises `ValueError` with the remedy if it is missing or damaged."""
        manifest = read_manifest(folder)
        if split not in manifest.samples:
            have = ", ".join(manifest.samples)
            raise ValueError(f"{folder} has no split {split!r}; it has {have}")
        samples, files = split_files(split)
        table = _open_table(folder / samples, SPLIT_SCHEMA, manifest)
        file_table = _open_table(folder / files, FILES_SCHEMA, manifest)
        index = Index(split, root or folder / manifest.root, manifest, table, file_table)
        fault = index.fault()
        if fault:
            raise ValueError(f"{folder / samples} is damaged: {fault}; prepare it again")
        return index

    def __len__(self) -> int:
        return self.table.num_rows

    def fault(self) -> str | None:
        """Return the first fault of this index, which may be damaged or forged; None if valid."""
        return next(self._faults(), None)

    def _faults(self) -> Iterator[str]:
        """Yield faults; each check relies on the checks before it."""
        count, classes = self.manifest.samples[self.split], len(self.manifest.classes)
        names = len(self.manifest.class_names)
        if len(self) != count:
            yield f"it has {plural(len(self), 'sample')}, but {MANIFEST} says {count}"
        if names not in (0, classes):
            both = plural(names, "class name"), plural(classes, "class", "classes")
            yield f"it has {' for '.join(both)}"
        if count == 0:
            return
        bounds = {
            "file": (self.file_ids, len(self.file_table)),
            "label": (self.labels, classes),
            "stored": (self.stored, count),
        }
        for name, (values, bound) in bounds.items():
            if values.min() < 0 or values.max() >= bound:
                yield f"a value of {name!r} is not in 0..{bound - 1}"
        seen = np.zeros(count, np.bool_)
        seen[self.stored] = True
        if not seen.all():
            yield "a sample is stored twice"
        if min(self.sizes.min(), self.offsets.min(), self.file_sizes.min()) < 0:
            yield "an offset or size is negative"
        for some in (slice(at, at + MOST_AT_ONCE) for at in range(0, count, MOST_AT_ONCE)):
            last = self.file_sizes[self.file_ids[some]] - self.sizes[some]
            if (self.offsets[some] > last).any():
                yield "an image extends past the end of its file"
        if min(self.widths.min(), self.heights.min()) < 1:
            yield "an image has no pixels"

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        return _values(self.table, "label", np.int32)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each image."""
        return _values(self.table, "size", np.int64)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return _values(self.table, "offset", np.int64)

    @cached_property
    def widths(self) -> NDArray[np.int32]:
        return _values(self.table, "width", np.int32)

    @cached_property
    def heights(self) -> NDArray[np.int32]:
        return _values(self.table, "height", np.int32)

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """The digest of each image: uint8 of shape (samples, 16)."""
        return as_numpy(self.table, "digest").reshape(-1, DIGEST_BYTES)

    @cached_property
    def stored(self) -> NDArray[np.int64]:
        """The samples in their order on disk, file by file."""
        return _values(self.table, "stored", np.int64)

    @cached_property
    def file_ids(self) -> NDArray[np.int32]:
        """For each sample, the index of its file in `files`."""
        return _values(self.table, "file", np.int32)

    @cached_property
    def files(self) -> Any:
        """A pyarrow string array: the paths of the files, below `root`."""
        return chunk(self.file_table, "name")

    @cached_property
    def file_sizes(self) -> NDArray[np.int64]:
        """Bytes of each file when it was indexed."""
        return _values(self.file_table, "size", np.int64)

    @cached_property
    def file_mtimes_ns(self) -> NDArray[np.int64]:
        """Modification time of each file when it was indexed, in nanoseconds since 1970."""
        return _values(self.file_table, "mtime_ns", np.int64)

    def path(self, sample: int) -> Path:
        """Return the file that contains a sample."""
        return self.root / self.files[int(self.file_ids[sample])].as_py()


def _open_table(path: Path, schema: Any, manifest: Manifest) -> Any:
    """Memory-map a table, after comparing it with its checksum in the manifest."""
    try:
        content = pa.memory_map(str(path)).read_buffer()
        if xxhash.xxh3_128_hexdigest(content) != manifest.checksums[path.name]:
            raise ValueError(f"{path} does not match its checksum in {MANIFEST}; prepare it again")
        reader = pa.ipc.open_file(content)
        if not reader.schema.equals(schema) or reader.num_record_batches > 1:
            raise ValueError(f"{path} does not have the columns of an index; prepare it again")
        table = reader.read_all()
        table.validate(full=True)
        if any(column.null_count for column in table.columns):
            raise ValueError(f"{path} has missing values; prepare it again")
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(
            f"{path} cannot be read as an index ({error}); prepare it again"
        ) from error
    return table


def _values(table: Any, name: str, kind: type[Number]) -> NDArray[Number]:
    return as_numpy(table, name).view(kind)


def find_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of the dataset in `folder`; None if it is missing or damaged.

    Raises `ValueError` if a `manifest.json` there belongs to something else.
    """
    try:
        return read_manifest(folder)
    except ValueError:
        try:
            raw: Any = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError, RecursionError):
            return None
        if not (isinstance(raw, dict) and {"format", "fingerprint"} & raw.keys()):
            raise ValueError(
                f"{folder / MANIFEST} is not the manifest of a dataset; choose another folder"
            ) from None
        return None


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the dataset in `folder`.

    Raises `ValueError` with the remedy if it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        raw: Any = json.loads(path.read_text())
    except FileNotFoundError as error:
        remedy = f"make one: {command_line('data/prepare.py', 'SOURCE', '...', '--out', folder)}"
        raise ValueError(f"no dataset at {folder} ({MANIFEST} is missing); {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); prepare it again") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
        raise ValueError(f"{path} does not have format {FORMAT}; prepare it again")
    try:
        return TypeAdapter(Manifest).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path} is damaged ({place}: {first['msg']}); prepare it again"
        ) from error
