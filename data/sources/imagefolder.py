"""Folders of images, one for each class, indexed in place: nothing is copied.

Training and validation images are in two folders, or a part of one tree of classes is held out for
validation.
"""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.indexing.class_folders import list_class_folders, refuse_inside
from data.indexing.listing import Listing
from data.indexing.paths import root_for, shown
from data.indexing.source import Source, add_reading_arguments

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation")
OTHER_NAMES = ("test", "testing", "dev", "eval")
"""Names of folders that may be meant for validation: the message offers them."""
HOLD_OUT = "--val-fraction 0.1 holds out a tenth of the images of each class"


@dataclass(frozen=True, slots=True)
class Tree:
    """Class folders: `folders` is split -> path relative to `root`."""

    name: str
    root: Path
    folders: Mapping[str, str]
    notes: tuple[str, ...] = ()


def list_image_folders(tree: Tree, out: Path, val_fraction: float | None = None) -> Listing:
    """List the images of each class folder of each split.

    With `val_fraction`, that part of the training images becomes the split `val`.
    """
    refuse_inside(out, tree.root, tree.folders.values())
    found = list_class_folders(tree.root, tree.folders)
    return Listing(
        tree.name,
        root_for(tree.root, out),
        found.splits,
        found.classes,
        notes=(*tree.notes, *found.notes),
        val_fraction=val_fraction,
    )


def find_splits(source: Path) -> Tree:
    """Find the folders of training and validation images in `source`.

    Raises `ValueError` if one is missing, or if several could be meant.
    """
    names = _folders(source)
    train, val = _named(names, TRAIN_NAMES), _named(names, VAL_NAMES)
    if len(train) > 1 or len(val) > 1:
        several = " and ".join(f"{name}/" for name in (train if len(train) > 1 else val))
        raise ValueError(f"{source} has {several}; choose with --train DIR --val DIR")
    if not (train and val):
        raise ValueError(_missing_splits(source, names, train, val))
    folders = {"train": train[0], "val": val[0]}
    unusual = [f"{folder}/ is {split}" for split, folder in folders.items() if split != folder]
    unused = [name for name in names if name not in folders.values()]
    notes = [f"folders not used: {shown(unused)}"] if unused else []
    notes += [", ".join(unusual)] if unusual else []
    return Tree(source.resolve().name, source, folders, tuple(notes))


def one_tree(source: Path) -> Tree:
    """Return the class folders of `source` as training images.

    If it has only a folder of training images, its classes are meant. Raises `ValueError` if it has
    validation images, too.
    """
    names = _folders(source)
    train = [name for name in _named(names, TRAIN_NAMES) if _folders(source / name)]
    if not train:
        tree = source.resolve()
        name = tree.parent.name if tree.name.lower() in TRAIN_NAMES else tree.name
        return Tree(name, source, {"train": "."})
    others = [name for name in names if name not in train]
    if others or len(train) > 1:
        raise ValueError(
            f"{source} has {shown([f'{name}/' for name in names])}, not only classes; leave out"
            f" --val-fraction, or give the tree to divide: {source / train[0]}"
        )
    return Tree(source.resolve().name, source, {"train": train[0]}, (f"{train[0]}/ was divided",))


def two_trees(train: Path, val: Path) -> Tree:
    """Return the class folders of `train` and `val`, wherever they are.

    Raises `ValueError` if one of them is inside the other.
    """
    for given in (train, val):
        _folders(given)
    both = {"train": train.resolve(), "val": val.resolve()}
    if both["train"].is_relative_to(both["val"]) or both["val"].is_relative_to(both["train"]):
        raise ValueError(
            f"--train {train} and --val {val} have the same images; give two folders, neither of"
            f" them inside the other, or {HOLD_OUT}"
        )
    root = Path(os.path.commonpath([folder.parent for folder in both.values()]))
    folders = {split: str(folder.relative_to(root)) for split, folder in both.items()}
    return Tree(root.name or both["train"].name, root, folders)


def _folders(source: Path) -> list[str]:
    """Return the names of the folders in `source`; raises `ValueError` if it is not a folder."""
    if not source.exists():
        raise ValueError(f"{source} does not exist; give the folder with the images")
    if not source.is_dir():
        raise ValueError(f"{source} is not a folder; unpack it first, and give that folder")
    return sorted(entry.name for entry in os.scandir(source) if entry.is_dir())


def _named(names: list[str], known: tuple[str, ...]) -> list[str]:
    """Return the name that equals `known[0]`; if there is none, all names that are in `known`."""
    return [name for name in names if name == known[0]] or [n for n in names if n.lower() in known]


def _missing_splits(source: Path, names: list[str], train: list[str], val: list[str]) -> str:
    missing = [f"{split}/" for split, found in (("train", train), ("val", val)) if not found]
    holds = shown(names) or "no folders"
    what = f"{source} has no {' and no '.join(missing)} (it contains {holds})"
    if not train and not val and names:
        return f"{what}; if these are classes, {HOLD_OUT}"
    maybe = _named(names, OTHER_NAMES)
    if train and maybe:
        command = f"--train {source / train[0]} --val {source / maybe[0]}"
        return f"{what}; to validate on {maybe[0]}/, give {command}; or {HOLD_OUT}"
    if train:
        return f"{what}; put the images in {source / 'val'}/CLASS/*, or {HOLD_OUT}"
    return f"{what}; put the images in {source / 'train'}/CLASS/*"


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="SRC",
        help="the folder with train/CLASS/ and val/CLASS/, or with CLASS/ if a part is held out",
    )
    parser.add_argument("--train", type=Path, metavar="DIR", help="the folder with training CLASS/")
    parser.add_argument("--val", type=Path, metavar="DIR", help="the folder with validation CLASS/")
    parser.add_argument(
        "--val-fraction",
        type=_fraction,
        metavar="F",
        help="hold out this fraction of the images of each class for validation, such as 0.1",
    )
    add_reading_arguments(parser)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ArgumentTypeError(f"{text!r} must be a number between 0 and 1, such as 0.1")
    return value


def _tree(arguments: Namespace) -> Tree:
    source, train, val = arguments.source, arguments.train, arguments.val
    if (source is None) == (train is None):
        raise ValueError("give SRC, or --train DIR; not both")
    if val and arguments.val_fraction:
        raise ValueError("give --val DIR or --val-fraction F; not both")
    if val and source:
        raise ValueError(f"give --train {source} --val {val}, without SRC")
    if val:
        return two_trees(train, val)
    if arguments.val_fraction:
        return one_tree(source or train)
    if train:
        raise ValueError(f"--train needs --val DIR or --val-fraction F; {HOLD_OUT}")
    return find_splits(source)


def _prepare(arguments: Namespace) -> Listing:
    return list_image_folders(_tree(arguments), arguments.out, arguments.val_fraction)


SOURCE = Source("imagefolder", "folders of images, in place", _add_arguments, _prepare)
