"""CIFAR-10 from class folders (indexed where they lie), the original batch files, or an archive.

Pixels of the original files are written as PNGs, which lose nothing; they are never unpickled with
pickle's own loader.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.formats.archive import unpack
from data.formats.cifar_batches import BATCHES, META, read_batch, read_classes
from data.indexing.source import Source, Survey, add_reading_arguments, root_for
from data.indexing.store import IMAGES, add_image, open_store, stored
from data.indexing.survey import Rules, carry_out
from data.sources.imagefolder import Folders, list_folders, refuse_inside
from pipeline.dataset.samples import Sample, Samples
from pipeline.dataset.writing import Dataset

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


def prepare(source: Path, out: Path, rules: Rules) -> Survey | Dataset:
    """Index CIFAR-10 from a folder or an archive; its `test` becomes the split `val`.

    Class folders stay where they are. Batch files, and what comes in an archive, are written under
    `out/images`. Raise `ValueError` unless all 60,000 images are there in batch files (or
    `rules.partial`); of class folders a part is a dataset as good, and other counts are noted.
    """
    if not source.exists():
        raise ValueError(f"{source} does not exist; give CIFAR-10's folder or archive")
    if source.is_file():
        with _unpacked(source, out) as folder:
            match _locate(folder, source):
                case BatchFiles(root):
                    return _write_batches(root, out, source=source, partial=rules.partial)
                case ClassFolders(root):
                    return _take_folders(root, out, rules)
    match _locate(source, source):
        case BatchFiles(root):
            return _write_batches(root, out, source=source, partial=rules.partial)
        case ClassFolders(root):
            refuse_inside(out, root, FOLDERS.values())
            return _survey(list_folders(root, FOLDERS), root_for(root, out))


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
        found = list_folders(store, {split: split for split in FOLDERS})
        dataset = carry_out(_survey(found, "."), rules, out=out)
    splits = {split: _below(IMAGES, samples) for split, samples in dataset.splits.items()}
    return replace(dataset, splits=splits, request={})


def _below(folder: str, samples: Samples) -> Samples:
    files = tuple(replace(file, name=f"{folder}/{file.name}") for file in samples.files)
    return replace(samples, files=files)


def _survey(found: Folders, root: str) -> Survey:
    listed = {split: [f for u in units for f in u.files] for split, units in found.splits.items()}
    difference = _difference(listed, len(found.classes))
    notes = (*found.notes, difference) if difference else found.notes
    return Survey("cifar10", root, found.splits, found.classes, notes=notes)


def _write_batches(root: Path, out: Path, *, source: Path, partial: bool) -> Dataset:
    """Write the images of the batch files as PNGs, each named by its place in its split."""
    classes = read_classes(root)
    splits: dict[str, list[Sample]] = {split: [] for split in BATCHES}
    with open_store(out) as store:
        for split, pattern in BATCHES.items():
            for path in sorted(root.glob(pattern)):
                batch = read_batch(path, len(classes))
                for pixels, label in zip(batch.pixels, batch.labels, strict=True):
                    file = f"{split}/{classes[label]}/{len(splits[split]):05d}.png"
                    splits[split].append(add_image(store, _png(pixels), file=file, label=label))
        difference = _difference(splits, len(classes))
        if difference and not partial:
            raise ValueError(
                f"{source} holds {difference}; fetch it again, or accept it with --partial"
            )
    return Dataset("cifar10", classes, ".", stored(out, splits))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _difference(splits: Mapping[str, Sized], classes: int) -> str:
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
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Survey | Dataset:
    return prepare(arguments.source, arguments.out, Rules.of(arguments))


SOURCE = Source("cifar10", "CIFAR-10 as class folders, batches or archive", _add_arguments, _run)
