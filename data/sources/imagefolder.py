"""Folders of images, one for each class, indexed where they lie: nothing is copied.

Classes and labels are those of torchvision's ImageFolder.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from data.indexing.images import EXTENSIONS, FilesUnit, ImageFile, in_units
from data.indexing.source import Source, Survey, add_reading_arguments, require_utf8, root_for
from data.indexing.survey import shown


@dataclass(frozen=True, slots=True)
class Folders:
    """A tree of class folders; the files of its units are below its root."""

    classes: tuple[str, ...]
    splits: dict[str, list[FilesUnit]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one split: those that should be images, and the paths of all others."""

    images: list[ImageFile]
    others: list[str]


def survey(source: Path, out: Path) -> Survey:
    """List `source/train/CLASS/*` and `source/val/CLASS/*`, folders within classes included."""
    folders = {"train": "train", "val": "val"}
    require_folders(source, folders.values())
    refuse_inside(out, source, folders.values())
    found = list_folders(source, folders)
    name = source.resolve().name
    return Survey(name, root_for(source, out), found.splits, found.classes, notes=found.notes)


def require_folders(source: Path, folders: Iterable[str]) -> None:
    """Raise `ValueError` unless `source` is a folder that holds all of `folders`."""
    if not source.exists():
        raise ValueError(f"{source} does not exist; give the folder that holds the images")
    if not source.is_dir():
        raise ValueError(f"{source} is no folder; unpack it first, and give that folder")
    missing = [f"{name}/" for name in folders if not (source / name).is_dir()]
    if missing:
        holds = shown(sorted(entry.name for entry in source.iterdir())) or "nothing"
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


def list_folders(root: Path, folders: Mapping[str, str]) -> Folders:
    """List the class folders of each split (`folders`: split -> path under `root`).

    Classes are the sorted names of the folders of `train`. Raise `ValueError` for an unknown or
    empty class.
    """
    classes = class_names(root / folders["train"])
    listings = {split: list_images(root, name, classes) for split, name in folders.items()}
    splits = {split: in_units(root, listing.images) for split, listing in listings.items()}
    others = list(chain.from_iterable(listing.others for listing in listings.values()))
    return Folders(classes, splits, ignored(others))


def ignored(others: Sequence[str]) -> tuple[str, ...]:
    """Note which files are not named as images, if there are any."""
    if not others:
        return ()
    return (f"{len(others):,} files not named as images ignored: {shown(others)}",)


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders in `folder`; raise `ValueError` for none."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    for name in names:
        require_utf8(f"{folder}/{name}")
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
            f"{root / folder} has {len(unknown)} classes that train/ has not: {shown(unknown)}; "
            "rename or remove them (an unsorted folder needs its labels first)"
        )
    labels = {name: label for label, name in enumerate(classes)}
    listing = Listing([], [])
    for entry in os.scandir(root / folder):
        if not entry.is_dir():
            listing.others.append(f"{folder}/{entry.name}")
    for name in names:
        for path, entry in walk(root, f"{folder}/{name}"):
            if path.rpartition(".")[2].lower() in EXTENSIONS:
                listing.images.append(image_file(path, entry, labels[name]))
            else:
                listing.others.append(path)
    _refuse_empty(root / folder, names, {classes[image.label] for image in listing.images})
    return listing


def walk(
    root: Path, folder: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file below `root/folder`, through links too but never round in a circle."""
    status = (root / folder).stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        return
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
        path = f"{folder}/{entry.name}"
        if entry.is_dir():
            yield from walk(root, path, above | {place})
        else:
            yield path, entry


def image_file(path: str, entry: os.DirEntry[str], label: int) -> ImageFile:
    """Note a file as it is listed; a broken link is noted too, and found out when it is read."""
    try:
        status = entry.stat()
    except OSError:
        return ImageFile(path, label, -1, -1)
    return ImageFile(path, label, status.st_size, status.st_mtime_ns)


def _refuse_empty(folder: Path, names: Sequence[str], filled: set[str]) -> None:
    empty = [name for name in names if name not in filled]
    if empty:
        raise ValueError(
            f"{folder} has {len(empty)} classes without an image "
            f"({', '.join(sorted(EXTENSIONS))}): {shown(empty)}; add images or remove the folders"
        )


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="holds train/CLASS/ and val/CLASS/"
    )
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Survey:
    return survey(arguments.source, arguments.out)


SOURCE = Source("imagefolder", "folders of images, indexed where they lie", _add_arguments, _run)
