"""Folders of images, one for each class, indexed in place: nothing is copied."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from data.indexing.class_folders import list_class_folders, refuse_inside, require_folders
from data.indexing.listing import Listing
from data.indexing.paths import root_for
from data.indexing.source import Source, add_reading_arguments

FOLDERS = {"train": "train", "val": "val"}


def list_image_folders(source: Path, out: Path) -> Listing:
    """List `source/train/CLASS/**` and `source/val/CLASS/**`."""
    require_folders(source, FOLDERS.values())
    refuse_inside(out, source, FOLDERS.values())
    found = list_class_folders(source, FOLDERS)
    name = source.resolve().name
    return Listing(name, root_for(source, out), found.splits, found.classes, notes=found.notes)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="the folder with train/CLASS/ and val/CLASS/"
    )
    add_reading_arguments(parser)


def _prepare(arguments: Namespace) -> Listing:
    return list_image_folders(arguments.source, arguments.out)


SOURCE = Source("imagefolder", "folders of images, in place", _add_arguments, _prepare)
