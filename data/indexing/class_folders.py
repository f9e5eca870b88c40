"""Folders of images, one for each class, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
class Met:
    """What is in a tree besides the images in its class folders; paths relative to its root."""

    others: list[str] = field(default_factory=list[str])
    """Files that are not named like images."""
    deeper: list[str] = field(default_factory=list[str])
    """Images in subfolders of their class folder."""
    links: list[str] = field(default_factory=list[str])
    """Symbolic links that were followed."""
    loops: list[str] = field(default_factory=list[str])
    """Symbolic links to a parent folder."""

    def notes(self) -> tuple[str, ...]:
        """Return a sentence about each kind, with its number and the first few names."""
        kinds = (
            (self.others, "file", "ignored, not named like images"),
            (self.deeper, "image", "in subfolders of a class folder, counted as that class"),
            (self.links, "link", "followed"),
            (self.loops, "link", "back to a parent folder not followed"),
        )
        return tuple(
            f"{plural(len(names), noun)} {what}: {shown(names)}"
            for names, noun, what in kinds
            if names
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
    met = Met()
    splits: dict[str, list[FilesUnit]] = {}
    for split, folder in folders.items():
        note_link(root, folder, met)
        splits[split] = in_units(root, list_images(root, folder, classes, met))
    return ClassFolders(classes, splits, met.notes())


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders in `folder`; raises `ValueError` without any."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    for name in names:
        require_utf8(f"{folder}/{name}")
    if not names:
        raise ValueError(f"{folder} has no class folders; put the images in {folder}/CLASS/*")
    return tuple(names)


def list_images(root: Path, folder: str, classes: Sequence[str], met: Met) -> list[ImageFile]:
    """List the files of `root/folder/CLASS/**`; paths are relative to `root`.

    Raises `ValueError` for a class that is not one of `classes`, or that has no image.
    """
    names = class_names(root / folder)
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise ValueError(
            f"{root / folder} has {plural(len(unknown), 'class', 'classes')} that train/ lacks: "
            f"{shown(unknown)}; rename or remove them (unsorted images need labels first)"
        )
    images: list[ImageFile] = []
    for entry in os.scandir(root / folder):
        if not entry.is_dir():
            met.others.append(_below(folder, entry.name))
    for name in names:
        of_class = _below(folder, name)
        note_link(root, of_class, met)
        for path, entry in walk_files(root, of_class, met):
            if path.rpartition(".")[2].lower() not in EXTENSIONS:
                met.others.append(path)
                continue
            images.append(image_file(path, entry, labels[name]))
            if path != f"{of_class}/{entry.name}":
                met.deeper.append(path)
    _refuse_empty(root / folder, names, {classes[image.label] for image in images})
    return images


def _below(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def note_link(root: Path, path: str, met: Met) -> None:
    """Note that `root/path` is a link, if it is one."""
    if (root / path).is_symlink():
        met.links.append(path)


def walk_files(
    root: Path, folder: str, met: Met, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file below `root/folder`; links are followed and noted, but not in loops."""
    here = above | {_place(root / folder)}
    for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
        path = f"{folder}/{entry.name}"
        is_folder = entry.is_dir()
        if is_folder and _place(root / path) in here:
            met.loops.append(path)
            continue
        if entry.is_symlink():
            met.links.append(path)
        if is_folder:
            yield from walk_files(root, path, met, here)
        else:
            yield path, entry


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


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
