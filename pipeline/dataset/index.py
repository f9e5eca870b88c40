"""The index of a dataset: for each sample the file, byte range, label, size in pixels and digest.

A dataset is a folder with `manifest.json` and one memory-mapped Arrow file for each split. The
images stay where they are: whole files, or ranges of bytes inside archives. Samples are kept in the
order of (label, digest), so the same images give the same index whatever they were packed in.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow
from numpy.typing import NDArray

from pipeline.durable import sync_folder, write_durably

pa: Any = pyarrow  # it ships no types

Number = TypeVar("Number", np.int32, np.int64)

MANIFEST = "manifest.json"
FORMAT = 1
DIGEST_BYTES = 16
SCHEMA = pa.schema(
    [
        pa.field("file", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as it lies on disk; `digest` is the first 16 bytes of its SHA-256."""

    file: str
    offset: int
    size: int
    label: int
    width: int
    height: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a dataset holds; `root` is absolute, or relative to the manifest's folder."""

    name: str
    classes: tuple[str, ...]
    samples: dict[str, int]
    """Number of samples of each split."""
    fingerprint: str
    """SHA-256 over the class names and every split's labels and digests."""
    root: str
    format: int = FORMAT


def digest(content: bytes) -> bytes:
    """The 16 bytes that stand for an image's content."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


@dataclass(frozen=True)
class Index:
    """One split, memory-mapped: opening it reads no sample, and processes share its pages."""

    split: str
    root: Path
    manifest: Manifest
    table: Any
    """A pyarrow Table of `SCHEMA`."""

    @staticmethod
    def open(folder: Path, split: str, root: Path | None = None) -> "Index":
        """Open one split; raise `ValueError` with the remedy if it is missing or damaged."""
        manifest = read_manifest(folder)
        if split not in manifest.samples:
            have = ", ".join(manifest.samples)
            raise ValueError(f"{folder} has no split {split!r} (it has {have})")
        path = folder / f"{split}.arrow"
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} is no readable index ({error}); prepare it again") from error
        if table.schema != SCHEMA or table.num_rows != manifest.samples[split]:
            raise ValueError(f"{path} does not match {folder / MANIFEST}; prepare it again")
        return Index(split, root or folder / manifest.root, manifest, table)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        return _values(self._chunk("label"), np.int32)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each image."""
        return _values(self._chunk("size"), np.int64)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return _values(self._chunk("offset"), np.int64)

    @cached_property
    def widths(self) -> NDArray[np.int32]:
        return _values(self._chunk("width"), np.int32)

    @cached_property
    def heights(self) -> NDArray[np.int32]:
        return _values(self._chunk("height"), np.int32)

    @cached_property
    def file_ids(self) -> NDArray[np.int32]:
        """For each sample, the place of its file in `files`."""
        return _values(self._chunk("file").indices, np.int32)

    @cached_property
    def files(self) -> Any:
        """A pyarrow string array: the paths that samples lie in, relative to `root` or absolute."""
        return self._chunk("file").dictionary

    def path(self, sample: int) -> Path:
        """The file that holds sample number `sample`."""
        return self.root / self.files[int(self.file_ids[sample])].as_py()

    def _chunk(self, name: str) -> Any:
        column = self.table.column(name)
        assert column.num_chunks <= 1, "an index is written as one record batch"
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _values(array: Any, kind: type[Number]) -> NDArray[Number]:
    """View a pyarrow array as numpy's, without a copy (pyarrow's own way would load pandas)."""
    _validity, data = array.buffers()
    if data is None:
        return np.empty(0, kind)
    return np.frombuffer(
        data, kind, count=len(array), offset=array.offset * np.dtype(kind).itemsize
    )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the dataset in `folder`; raise `ValueError` if there is none."""
    path = folder / MANIFEST
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        remedy = f"make one: python data/prepare.py SOURCE ... --out {folder}"
        raise ValueError(f"no dataset at {folder} ({MANIFEST} is missing); {remedy}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); prepare it again") from error
    try:
        if raw["format"] != FORMAT:
            raise ValueError(f"{path} is not of format {FORMAT}; prepare it again")
        raw["classes"] = tuple(raw["classes"])
        return Manifest(**raw)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); prepare it again") from error


def write_dataset(
    folder: Path,
    *,
    name: str,
    classes: Sequence[str],
    root: str,
    splits: Mapping[str, Sequence[Sample]],
) -> Manifest:
    """Write a dataset's indexes and, last and atomically, the manifest that makes it valid.

    What `folder` held before stays valid until all of the new dataset is on disk beside it.
    """
    fingerprint = hashlib.sha256(json.dumps(list(classes)).encode())
    counts: dict[str, int] = {}
    files: dict[str, bytes] = {}
    for split, samples in sorted(splits.items()):
        ordered = _in_order(samples, len(classes))
        fingerprint.update(f"{split}:{len(ordered)}:".encode())
        fingerprint.update(np.array([s.label for s in ordered], "<i4").tobytes())
        fingerprint.update(b"".join(s.digest for s in ordered))
        counts[split] = len(ordered)
        files[f"{split}.arrow"] = _ipc(_table(ordered))
    manifest = Manifest(name, tuple(classes), counts, fingerprint.hexdigest(), root)
    files[MANIFEST] = json.dumps(asdict(manifest), indent=2).encode() + b"\n"
    _replace_all(folder, files)
    return manifest


def _in_order(samples: Sequence[Sample], classes: int) -> list[Sample]:
    ordered = sorted(samples, key=lambda s: (s.label, s.digest, s.file, s.offset))
    for sample in ordered:
        if not 0 <= sample.label < classes:
            raise ValueError(f"{sample.file}: label {sample.label} is not in 0..{classes - 1}")
    return ordered


def _table(samples: Sequence[Sample]) -> Any:
    columns = {field.name: [getattr(s, field.name) for s in samples] for field in SCHEMA}
    columns["file"] = pa.array(columns["file"], pa.string()).dictionary_encode()
    return pa.table(columns, SCHEMA).combine_chunks()


def _ipc(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    return sink.getvalue().to_pybytes()


def _replace_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put whole files in place; between the old manifest and the new one there is none."""
    assert list(files)[-1] == MANIFEST, "the manifest is there only with all that it speaks of"
    folder.mkdir(parents=True, exist_ok=True)
    staged = {name: folder / f".{name}.{os.getpid()}.tmp" for name in files}
    try:
        for name, temporary in staged.items():
            write_durably(temporary, files[name])
        (folder / MANIFEST).unlink(missing_ok=True)
        sync_folder(folder)
        for name, temporary in staged.items():
            if name == MANIFEST:
                sync_folder(folder)
            temporary.replace(folder / name)
        sync_folder(folder)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
