"""Folders of images, one for each class, indexed where they lie: nothing is copied.

Classes and labels are those of torchvision's ImageFolder.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from data.images import BadImage, ImageFile, left_out, read_images, refusal
from data.source import Dataset, Source, add_reading_arguments, root_for
from pipeline.dataset.index import Sample

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "ppm", "pgm", "bmp", "webp", "tif", "tiff"})
NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Folders:
    """The samples of a tree of class folders; their files are relative to its root."""

    classes: tuple[str, ...]
    splits: dict[str, list[Sample]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one split: those that should be images, and the paths of all others."""

    images: list[ImageFile]
    others: list[str]


def prepare(source: Path, out: Path, *, workers: int, skip_bad: bool) -> Dataset:
    """Index `source/train/CLASS/*` and `source/val/CLASS/*`, folders within classes included."""
    folders = {"train": "train", "val": "val"}
    require_folders(source, folders.values())
    refuse_inside(out, source, folders.values())
    found = read_folders(source, folders, workers=workers, skip_bad=skip_bad)
    name = source.resolve().name
    return Dataset(name, found.classes, root_for(source, out), found.splits, found.notes)


def require_folders(source: Path, folders: Iterable[str]) -> None:
    """Raise `ValueError` unless `source` is a folder that holds all of `folders`."""
    if not source.exists():
        raise ValueError(f"{source} does not exist; give the folder that holds the images")
    if not source.is_dir():
        raise ValueError(f"{source} is no folder; unpack it first, and give that folder")
    missing = [f"{name}/" for name in folders if not (source / name).is_dir()]
    if missing:
        holds = _shown(sorted(entry.name for entry in source.iterdir())) or "nothing"
        wanted = " and ".join(f"{source / name}/CLASS/*" for name in folders)
        raise ValueError(
            f"{source} has no {' and no '.join(missing)} (it holds {holds}); images must lie "
            f"in {wanted}"
        )


def refuse_inside(out: Path, source: Path, folders: Iterable[str]) -> None:
    """Raise `ValueError` if `out` is among the class folders, where it would pass for a class."""
    for folder in folders:
        if out.resolve().is_relative_to((source / folder).resolve()):
            raise ValueError(f"--out {out} is inside {source / folder}; choose a folder outside")


def read_folders(
    root: Path, folders: Mapping[str, str], *, workers: int, skip_bad: bool
) -> Folders:
    """Read the class folders of each split (`folders`: split -> path under `root`).

    Classes are the sorted names of the folders of `train`. Raise `ValueError` for an unknown or
    empty class, and for bad files, all at once, unless they are to be left out.
    """
    classes = class_names(root / folders["train"])
    listings = {split: list_images(root, name, classes) for split, name in folders.items()}
    images = [image for listing in listings.values() for image in listing.images]
    results = iter(read_images(root, images, workers=workers))
    splits: dict[str, list[Sample]] = {}
    bad: list[BadImage] = []
    for split, listing in listings.items():
        found = list(islice(results, len(listing.images)))
        splits[split] = [result for result in found if isinstance(result, Sample)]
        bad += [result for result in found if isinstance(result, BadImage)]
    if bad and not skip_bad:
        raise ValueError(refusal(bad, total=len(images)))
    _refuse_empty(root / folders["train"], classes, {classes[s.label] for s in splits["train"]})
    others = list(chain.from_iterable(listing.others for listing in listings.values()))
    return Folders(classes, splits, _notes(others, bad))


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders in `folder`; raise `ValueError` for none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise ValueError(f"{folder} holds no class folders; images must lie in {folder}/CLASS/*")
    return tuple(names)


def list_images(root: Path, folder: str, classes: Sequence[str]) -> Listing:
    """List the files of `root/folder/CLASS/**`; paths are relative to `root`.

    Raise `ValueError` for a class that is not among `classes`, or that holds no image.
    """
    names = class_names(root / folder)
    unknown = [name for name in names if name not in set(classes)]
    if unknown:
        raise ValueError(
            f"{root / folder} has {len(unknown)} classes that train/ has not: {_shown(unknown)}; "
            "rename or remove them (an unsorted folder needs its labels first)"
        )
    labels = {name: label for label, name in enumerate(classes)}
    listing = Listing([], [])
    for entry in os.scandir(root / folder):
        if not entry.is_dir():
            listing.others.append(f"{folder}/{entry.name}")
    for name in names:
        for path in _files(root, f"{folder}/{name}", frozenset()):
            if path.rpartition(".")[2].lower() in EXTENSIONS:
                listing.images.append(ImageFile(path, labels[name]))
            else:
                listing.others.append(path)
    _refuse_empty(root / folder, names, {classes[image.label] for image in listing.images})
    return listing


def _files(root: Path, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield every file below `root/folder`, through links too but never round in a circle."""
    status = (root / folder).stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        return
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
        path = f"{folder}/{entry.name}"
        if entry.is_dir():
            yield from _files(root, path, above | {place})
        else:
            yield path


def _refuse_empty(folder: Path, names: Sequence[str], filled: set[str]) -> None:
    empty = [name for name in names if name not in filled]
    if empty:
        raise ValueError(
            f"{folder} has {len(empty)} classes without an image "
            f"({', '.join(sorted(EXTENSIONS))}): {_shown(empty)}; add images or remove the folders"
        )


def _notes(others: Sequence[str], bad: Sequence[BadImage]) -> tuple[str, ...]:
    notes: list[str] = []
    if others:
        notes.append(f"{len(others):,} files not named as images ignored: {_shown(others)}")
    if bad:
        notes.append(left_out(bad))
    return tuple(notes)


def _shown(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="holds train/CLASS/ and val/CLASS/"
    )
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Dataset:
    given = arguments
    return prepare(given.source, given.out, workers=given.workers, skip_bad=given.skip_bad)


SOURCE = Source("imagefolder", "folders of images, indexed where they lie", _add_arguments, _run)
