"""Writing a dataset: sorted, with a fingerprint, completely or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import xxhash
from numpy.typing import NDArray

from pipeline.dataset.index import (
    FILES_SCHEMA,
    MANIFEST,
    SPLIT_SCHEMA,
    Manifest,
    find_manifest,
    split_files,
)
from pipeline.dataset.samples import COLUMNS, Samples, StoredFile, as_arrow
from pipeline.system.durable import sync_folder, write_durably

pa: Any = pyarrow  # it has no type hints


@dataclass(frozen=True, slots=True)
class Dataset:
    """The input of an index."""

    name: str
    classes: tuple[str, ...]
    root: str
    """The folder that contains the samples' files: absolute, or relative to the index."""
    splits: Mapping[str, Samples]
    class_names: tuple[str, ...] = ()
    """The classes in words, if known."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one sentence each: files ignored, images left out."""
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    """What it was prepared from."""
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    """The arguments of the user."""


def write_dataset(folder: Path, dataset: Dataset, *, replace: bool = True) -> Manifest:
    """Write the indexes of a dataset and then, atomically, the manifest that makes it valid.

    A dataset already in `folder` stays valid until the new one is on disk beside it. Raises
    `ValueError` if a label has no class, and for another dataset in `folder`, unless `replace`.
    """
    splits = _in_order(dataset)
    fingerprint = _fingerprint(splits, len(dataset.classes))
    if not replace:
        _refuse_another(folder, fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    with _NewFiles(folder) as new:
        for split, samples in splits.items():
            of_samples, of_files = split_files(split)
            new.write_table(of_samples, _with_places(samples))
            new.write_table(of_files, _file_table(samples.files))
        manifest = Manifest(
            name=dataset.name,
            classes=dataset.classes,
            samples={split: len(samples) for split, samples in splits.items()},
            fingerprint=fingerprint,
            root=dataset.root,
            checksums=new.checksums,
            class_names=dataset.class_names,
            request=dataset.request,
            asked=dataset.asked,
        )
        new.put_in_place(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
    return manifest


def refuse_other(folder: Path, dataset: Dataset) -> None:
    """Raises `ValueError` if `folder` has a dataset of other images or labels than `dataset`."""
    _refuse_another(folder, _fingerprint(_in_order(dataset), len(dataset.classes)))


def another_dataset(folder: Path, manifest: Manifest) -> ValueError:
    """Return the error about the dataset in `folder`, which another must not replace."""
    counts = " + ".join(f"{n:,} {split}" for split, n in manifest.samples.items())
    return ValueError(
        f"{folder} has another dataset ({manifest.name}: {counts} images, fingerprint"
        f" {manifest.fingerprint[:12]}); choose another folder, or replace it with --replace"
    )


def _refuse_another(folder: Path, fingerprint: str) -> None:
    manifest = find_manifest(folder)
    if manifest and manifest.fingerprint != fingerprint:
        raise another_dataset(folder, manifest)


def _fingerprint(splits: Mapping[str, Samples], classes: int) -> str:
    fingerprint = hashlib.sha256(f"{classes} classes".encode())
    for split, samples in splits.items():
        fingerprint.update(f"{split}:{len(samples)}:".encode())
        fingerprint.update(samples.labels.astype("<i4").tobytes())
        fingerprint.update(samples.digests.tobytes())
    return fingerprint.hexdigest()


def _in_order(dataset: Dataset) -> dict[str, Samples]:
    classes = len(dataset.classes)
    return {split: _sorted(samples, classes) for split, samples in sorted(dataset.splits.items())}


def _sorted(samples: Samples, classes: int) -> Samples:
    """Sort files by name, without those that have no samples, and samples by (label, digest)."""
    columns = samples.columns
    wrong = np.flatnonzero((columns["label"] < 0) | (columns["label"] >= classes))
    if len(wrong):
        file = samples.files[columns["file"][wrong[0]]].name
        label = columns["label"][wrong[0]]
        raise ValueError(f"{file}: label {label} is not in 0..{classes - 1}")
    files, numbers = _sorted_files(samples)
    high, low = np.ascontiguousarray(samples.digests).view(">u8").astype(np.uint64).T
    order = np.lexsort((columns["offset"], numbers, low, high, columns["label"]))
    ordered = {name: {**columns, "file": numbers}[name][order] for name in COLUMNS}
    return Samples(files, ordered, samples.digests[order])


def _sorted_files(samples: Samples) -> tuple[tuple[StoredFile, ...], NDArray[np.int32]]:
    """Return the files in use, sorted, and for each sample the index of its file."""
    used: list[int] = np.unique(samples.columns["file"]).tolist()
    by_name = sorted(used, key=lambda number: samples.files[number].name)
    renumbered = np.zeros(len(samples.files), np.int32)
    renumbered[by_name] = np.arange(len(by_name), dtype=np.int32)
    files = tuple(samples.files[number] for number in by_name)
    return files, renumbered[samples.columns["file"]]


def _with_places(samples: Samples) -> Any:
    stored = np.lexsort((samples.columns["offset"], samples.columns["file"]))
    arrays = [*samples.table().columns, as_arrow(stored, pa.int64())]
    return pa.Table.from_arrays(arrays, schema=SPLIT_SCHEMA)


def _file_table(files: Sequence[StoredFile]) -> Any:
    columns = [[getattr(file, name) for file in files] for name in ("name", "size", "mtime_ns")]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, FILES_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=FILES_SCHEMA)


class _NewFiles:
    """New files beside the old ones. The old manifest is removed before they are replaced."""

    def __init__(self, folder: Path) -> None:
        self.checksums: dict[str, str] = {}
        self._folder = folder
        self._temporary: dict[str, Path] = {}

    def __enter__(self) -> "_NewFiles":
        return self

    def __exit__(self, *_: object) -> None:
        for temporary in self._temporary.values():
            temporary.unlink(missing_ok=True)

    def write_table(self, name: str, table: Any) -> None:
        """Write a table as one record batch, so that each mapped column is one array."""
        path = self._beside(name)
        with (
            pa.OSFile(str(path), "wb") as stream,
            pa.ipc.new_file(stream, table.schema) as writer,
        ):
            writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
        with path.open("rb") as file:
            os.fsync(file.fileno())
        content = pa.memory_map(str(path)).read_buffer()
        self.checksums[name] = xxhash.xxh3_128_hexdigest(content)

    def put_in_place(self, manifest: bytes) -> None:
        """Write the manifest, and let the new files replace the old ones."""
        write_durably(self._beside(MANIFEST), manifest)
        (self._folder / MANIFEST).unlink(missing_ok=True)
        sync_folder(self._folder)
        for name, temporary in self._temporary.items():
            if name == MANIFEST:  # comes last: the files that it describes are on disk by then
                sync_folder(self._folder)
            temporary.replace(self._folder / name)
        sync_folder(self._folder)

    def _beside(self, name: str) -> Path:
        temporary = self._folder / f".{name}.{os.getpid()}.tmp"
        with suppress(FileNotFoundError):
            temporary.unlink()
        self._temporary[name] = temporary
        return temporary
