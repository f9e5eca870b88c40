"""CIFAR-10 from class folders (indexed where they lie), the original batch files, or an archive.

Pixels of the original files are written as PNGs, which lose nothing; they are never unpickled with
pickle's own loader.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.archive import unpack
from data.cifar_batches import BATCHES, META, read_batch, read_classes
from data.imagefolder import Folders, read_folders, refuse_inside
from data.images import progress_bar
from data.source import Dataset, Source, add_reading_arguments, root_for
from data.store import IMAGES, add_image, open_store
from pipeline.dataset.index import Sample

CLASSES = 10
COUNTS = {"train": 50_000, "val": 10_000}
FOLDERS = {"train": "train", "val": "test"}
BATCH_FOLDER = "cifar-10-batches-py"
PLACES = (".", "cifar10", BATCH_FOLDER)
"""Where the images lie in the folder or archive that is given."""


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """`root` holds train/CLASS/* and test/CLASS/*."""

    root: Path


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """`root` holds the original batches.meta, data_batch_1 .. data_batch_5 and test_batch."""

    root: Path


@dataclass(frozen=True, slots=True)
class Rules:
    """What is accepted, and how it is read."""

    source: Path
    """What the person gave: it stands for folders of passing names in messages."""
    partial: bool
    """Accept batch files with other counts than CIFAR-10's."""
    skip_bad: bool
    workers: int


def prepare(out: Path, rules: Rules) -> Dataset:
    """Index CIFAR-10 from a folder or an archive; its `test` becomes the split `val`.

    Class folders stay where they are. Batch files, and what comes in an archive, are written under
    `out/images`. Raise `ValueError` unless all 60,000 images are there in batch files (or
    `rules.partial`); of class folders a part is a dataset as good, and other counts are noted.
    """
    source = rules.source
    if not source.exists():
        raise ValueError(f"{source} does not exist; give CIFAR-10's folder or archive")
    if source.is_file():
        with _unpacked(source, out) as folder:
            match _locate(folder, source):
                case BatchFiles(root):
                    return _write_batches(root, out, rules)
                case ClassFolders(root):
                    return _take_folders(root, out, rules)
    match _locate(source, source):
        case BatchFiles(root):
            return _write_batches(root, out, rules)
        case ClassFolders(root):
            refuse_inside(out, root, FOLDERS.values())
            found = _read_folders(root, FOLDERS, rules)
            return _dataset(found, root_for(root, out))


def _locate(folder: Path, source: Path) -> ClassFolders | BatchFiles:
    for root in (folder / place for place in PLACES):
        if (root / META).is_file():
            return BatchFiles(root)
        if all((root / name).is_dir() for name in FOLDERS.values()):
            return ClassFolders(root)
    holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"{source} holds {holds}, not CIFAR-10; wanted train/CLASS/* and test/CLASS/*, "
        f"or {META} with its batches, there or in {' or '.join(PLACES[1:])}"
    )


@contextmanager
def _unpacked(archive: Path, out: Path) -> Generator[Path, None, None]:
    """Unpack a tar archive into a passing folder in `out`; refuse members that lead elsewhere."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".unpacked-") as folder:
        unpack(archive, Path(folder))
        yield Path(folder)


def _take_folders(root: Path, out: Path, rules: Rules) -> Dataset:
    """Move unpacked class folders to `out/images`."""
    with open_store(out) as store:
        for split, folder in FOLDERS.items():
            (root / folder).rename(store / split)
        found = _read_folders(store, {split: split for split in FOLDERS}, rules)
    splits = {split: _below(IMAGES, samples) for split, samples in found.splits.items()}
    return _dataset(replace(found, splits=splits), ".")


def _below(folder: str, samples: Sequence[Sample]) -> list[Sample]:
    return [replace(sample, file=f"{folder}/{sample.file}") for sample in samples]


def _read_folders(root: Path, folders: Mapping[str, str], rules: Rules) -> Folders:
    found = read_folders(root, folders, workers=rules.workers, skip_bad=rules.skip_bad)
    difference = _difference(found.splits, len(found.classes))
    return replace(found, notes=(*found.notes, difference)) if difference else found


def _dataset(found: Folders, root: str) -> Dataset:
    return Dataset("cifar10", found.classes, root, found.splits, found.notes)


def _write_batches(root: Path, out: Path, rules: Rules) -> Dataset:
    """Write the images of the batch files as PNGs, each named by its place in its split."""
    classes = read_classes(root)
    splits: dict[str, list[Sample]] = {split: [] for split in BATCHES}
    with open_store(out) as store, progress_bar() as progress:
        task = progress.add_task("writing", total=sum(COUNTS.values()))
        for split, pattern in BATCHES.items():
            for path in sorted(root.glob(pattern)):
                batch = read_batch(path, len(classes))
                for pixels, label in zip(batch.pixels, batch.labels, strict=True):
                    file = f"{split}/{classes[label]}/{len(splits[split]):05d}.png"
                    splits[split].append(add_image(store, _png(pixels), file=file, label=label))
                    progress.advance(task)
        difference = _difference(splits, len(classes))
        if difference and not rules.partial:
            raise ValueError(
                f"{rules.source} holds {difference}; fetch it again, or accept it with --partial"
            )
    return Dataset("cifar10", classes, ".", splits)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _difference(splits: Mapping[str, Sequence[Sample]], classes: int) -> str:
    """Say what is there and what CIFAR-10 has, where the two differ in counts; else nothing."""
    counts = {split: len(samples) for split, samples in splits.items()}
    if counts == COUNTS and classes == CLASSES:
        return ""
    return (
        f"{counts['train']:,} + {counts['val']:,} images of {classes} classes, "
        f"CIFAR-10 has {COUNTS['train']:,} + {COUNTS['val']:,} of {CLASSES}"
    )


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a folder with train/ and test/, or with the original batches, or either as a tar",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="accept original batches with other counts than 50,000 + 10,000",
    )
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Dataset:
    given = arguments
    return prepare(given.out, Rules(given.source, given.partial, given.skip_bad, given.workers))


SOURCE = Source("cifar10", "CIFAR-10 as class folders, batches or archive", _add_arguments, _run)
