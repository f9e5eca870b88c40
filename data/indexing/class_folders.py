"""Folders of images, one for each class, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from data.indexing.image_files import EXTENSIONS, FilesUnit, ImageFile, in_units
from data.indexing.paths import require_utf8, shown
from pipeline.system.command import plural


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """A tree of class folders; the files of its units are relative to its root."""

    classes: tuple[str, ...]
    splits: dict[str, list[FilesUnit]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The files of one split: those named as images, and the paths of all others."""

    images: list[ImageFile]
    others: list[str]


def require_folders(source: Path, folders: Iterable[str]) -> None:
    """Raises `ValueError` unless `source` is a folder that contains all of `folders`."""
    if not source.exists():
        raise ValueError(f"{source} does not exist; give the folder with the images")
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder; unpack it first, and give that folder")
    missing = [f"{name}/" for name in folders if not (source / name).is_dir()]
    if missing:
        holds = shown(sorted(entry.name for entry in source.iterdir())) or "nothing"
        wanted = " and ".join(f"{source / name}/CLASS/*" for name in folders)
        raise ValueError(
            f"{source} has no {' and no '.join(missing)} (it contains {holds}); put the images in "
            f"{wanted}"
        )


def refuse_inside(out: Path, source: Path, folders: Iterable[str]) -> None:
    """Raises `ValueError` if `out` is inside a class tree, where it would count as a class."""
    for folder in folders:
        if out.resolve().is_relative_to((source / folder).resolve()):
            raise ValueError(f"--out {out} is inside {source / folder}; choose a folder outside")


def list_class_folders(root: Path, folders: Mapping[str, str]) -> ClassFolders:
    """List the class folders of each split (`folders`: split -> path relative to `root`).

    Classes are the sorted names of the folders of `train`. Raises `ValueError` for an unknown or
    empty class.
    """
    classes = class_names(root / folders["train"])
    files = {split: list_images(root, name, classes) for split, name in folders.items()}
    splits = {split: in_units(root, each.images) for split, each in files.items()}
    others = list(chain.from_iterable(each.others for each in files.values()))
    return ClassFolders(classes, splits, ignored(others))


def ignored(others: Sequence[str]) -> tuple[str, ...]:
    """Return a note about files that are not named as images, if there are any."""
    if not others:
        return ()
    return (f"{plural(len(others), 'file')} not named as images ignored: {shown(others)}",)


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders in `folder`; raises `ValueError` without any."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    for name in names:
        require_utf8(f"{folder}/{name}")
    if not names:
        raise ValueError(f"{folder} has no class folders; put the images in {folder}/CLASS/*")
    return tuple(names)


def list_images(root: Path, folder: str, classes: Sequence[str]) -> SplitFiles:
    """List the files of `root/folder/CLASS/**`; paths are relative to `root`.

    Raises `ValueError` for a class that is not one of `classes`, or that has no image.
    """
    names = class_names(root / folder)
    unknown = [name for name in names if name not in set(classes)]
    if unknown:
        raise ValueError(
            f"{root / folder} has {plural(len(unknown), 'class', 'classes')} that train/ lacks: "
            f"{shown(unknown)}; rename or remove them (unsorted images need labels first)"
        )
    labels = {name: label for label, name in enumerate(classes)}
    files = SplitFiles([], [])
    for entry in os.scandir(root / folder):
        if not entry.is_dir():
            files.others.append(f"{folder}/{entry.name}")
    for name in names:
        for path, entry in walk_files(root, f"{folder}/{name}"):
            if path.rpartition(".")[2].lower() in EXTENSIONS:
                files.images.append(image_file(path, entry, labels[name]))
            else:
                files.others.append(path)
    _refuse_empty(root / folder, names, {classes[image.label] for image in files.images})
    return files


def walk_files(
    root: Path, folder: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file below `root/folder`; links are followed, but not in loops."""
    status = (root / folder).stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        return
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
        path = f"{folder}/{entry.name}"
        if entry.is_dir():
            yield from walk_files(root, path, above | {place})
        else:
            yield path, entry


def image_file(path: str, entry: os.DirEntry[str], label: int) -> ImageFile:
    """Return a listed file; a broken link is reported when it is read."""
    try:
        status = entry.stat()
    except OSError:
        return ImageFile(path, label, -1, -1)
    return ImageFile(path, label, status.st_size, status.st_mtime_ns)


def _refuse_empty(folder: Path, names: Sequence[str], filled: set[str]) -> None:
    empty = [name for name in names if name not in filled]
    if empty:
        raise ValueError(
            f"{folder} has {plural(len(empty), 'class', 'classes')} without an image "
            f"({', '.join(sorted(EXTENSIONS))}): {shown(empty)}; add images or remove the folders"
        )
