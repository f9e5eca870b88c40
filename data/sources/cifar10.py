"""CIFAR-10 from class folders (indexed in place), the original batch files, or an archive.

The pixels of the original files are written as PNGs, which are lossless. Their pickles are never
loaded with Python's own unpickler, which would run any program in them.
"""

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.formats.cifar_batches import BATCHES, META, read_batch, read_classes
from data.formats.unpacking import unpack
from data.indexing.class_folders import ClassFolders, list_class_folders, refuse_inside
from data.indexing.listing import Listing
from data.indexing.paths import root_for
from data.indexing.reading import ReadingOptions, read_listing
from data.indexing.source import Source, add_reading_arguments
from data.indexing.written_images import IMAGES, add_image, collect_written, new_images_folder
from pipeline.dataset.samples import Sample, Samples
from pipeline.dataset.writing import Dataset, refuse_other
from pipeline.system.command import plural

CLASSES = 10
COUNTS = {"train": 50_000, "val": 10_000}
FOLDERS = {"train": "train", "val": "test"}
BATCH_FOLDER = "cifar-10-batches-py"
PLACES = (".", "cifar10", BATCH_FOLDER)
"""Where the images may be in the folder or archive."""


@dataclass(frozen=True, slots=True)
class CifarFolders:
    """`root` contains train/CLASS/* and test/CLASS/*."""

    root: Path


@dataclass(frozen=True, slots=True)
class CifarBatches:
    """`root` contains the original batches.meta, data_batch_1 .. data_batch_5 and test_batch."""

    root: Path


def prepare_cifar(
    source: Path, out: Path, options: ReadingOptions, *, replace: bool = False
) -> Listing | Dataset:
    """Index CIFAR-10 from a folder or an archive; its `test` becomes the split `val`.

    Class folders stay where they are. Images from batch files and from archives are written below
    `out/images`. Raises `ValueError` unless batch files have all 60,000 images, or
    `options.partial` is set; class folders may have other counts, which are noted. Raises
    `ValueError` before it writes images to an `out` with another dataset, unless `replace`.
    """
    if not source.exists():
        raise ValueError(f"{source} does not exist; give the folder or archive of CIFAR-10")
    if source.is_file():
        with _unpacked(source, out) as folder:
            match _locate(folder, source):
                case CifarBatches(root):
                    return _write_batches(root, out, source, options, replace=replace)
                case CifarFolders(root):
                    return _move_folders(root, out, options, replace=replace)
    match _locate(source, source):
        case CifarBatches(root):
            return _write_batches(root, out, source, options, replace=replace)
        case CifarFolders(root):
            refuse_inside(out, root, FOLDERS.values())
            return _listing(list_class_folders(root, FOLDERS), root_for(root, out))


def _locate(folder: Path, source: Path) -> CifarFolders | CifarBatches:
    for root in (folder / place for place in PLACES):
        if (root / META).is_file():
            return CifarBatches(root)
        if all((root / name).is_dir() for name in FOLDERS.values()):
            return CifarFolders(root)
    holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"{source} contains {holds}, not CIFAR-10, which is train/CLASS/* and test/CLASS/*, or"
        f" {META} and its batches, at the top or in {'/ or '.join(PLACES[1:])}/; give its folder or"
        " archive"
    )


@contextmanager
def _unpacked(archive: Path, out: Path) -> Generator[Path]:
    """Unpack a tar archive into a temporary folder in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".unpacked-") as folder:
        unpack(archive, Path(folder))
        yield Path(folder)


def _move_folders(root: Path, out: Path, options: ReadingOptions, *, replace: bool) -> Dataset:
    """Move unpacked class folders to `out/images`."""
    with new_images_folder(out) as images:
        for split, folder in FOLDERS.items():
            (root / folder).rename(images / split)
        found = list_class_folders(images, {split: split for split in FOLDERS})
        dataset = read_listing(_listing(found, "."), options, out=out)
        splits = {split: _below(IMAGES, samples) for split, samples in dataset.splits.items()}
        if not replace:
            refuse_other(out, dataset)
    return dataclasses.replace(dataset, splits=splits, request={})


def _below(folder: str, samples: Samples) -> Samples:
    files = [dataclasses.replace(file, name=f"{folder}/{file.name}") for file in samples.files]
    return dataclasses.replace(samples, files=tuple(files))


def _listing(found: ClassFolders, root: str) -> Listing:
    listed = {split: [f for u in units for f in u.files] for split, units in found.splits.items()}
    difference = _difference(listed, len(found.classes))
    notes = (*found.notes, difference) if difference else found.notes
    return Listing("cifar10", root, found.splits, found.classes, notes=notes)


def _write_batches(
    root: Path, out: Path, source: Path, options: ReadingOptions, *, replace: bool
) -> Dataset:
    """Write the images of the batch files as PNGs, named by their place in the split."""
    classes = read_classes(root)
    splits: dict[str, list[Sample]] = {split: [] for split in BATCHES}
    with new_images_folder(out) as folder:
        for split, pattern in BATCHES.items():
            for path in sorted(root.glob(pattern)):
                batch = read_batch(path, len(classes))
                for pixels, label in zip(batch.pixels, batch.labels, strict=True):
                    file = f"{split}/{classes[label]}/{len(splits[split]):05d}.png"
                    splits[split].append(add_image(folder, _png(pixels), file=file, label=label))
        difference = _difference(splits, len(classes))
        if difference and not options.partial:
            raise ValueError(f"{source}: {difference}; fetch it again, or accept it with --partial")
        notes = (difference,) if difference else ()
        dataset = Dataset("cifar10", classes, ".", collect_written(folder, splits), notes=notes)
        if not replace:
            refuse_other(out, dataset)
    return dataset


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _difference(splits: Mapping[str, Sized], classes: int) -> str:
    """Return how the counts differ from those of CIFAR-10; empty if they do not."""
    counts = {split: len(samples) for split, samples in splits.items()}
    if counts == COUNTS and classes == CLASSES:
        return ""
    return (
        f"{counts['train']:,} + {counts['val']:,} images of {plural(classes, 'class', 'classes')},"
        f" but CIFAR-10 has {COUNTS['train']:,} + {COUNTS['val']:,} of {CLASSES}"
    )


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a folder with train/ and test/ or with the original batches, or a tar of either",
    )
    add_reading_arguments(parser)


def _prepare(arguments: Namespace) -> Listing | Dataset:
    options = ReadingOptions.of(arguments)
    return prepare_cifar(arguments.source, arguments.out, options, replace=arguments.may_replace)


SOURCE = Source(
    "cifar10", "CIFAR-10 as class folders, batches or archive", _add_arguments, _prepare
)
