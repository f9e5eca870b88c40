"""Parquet files in the layout of Hugging Face, their images indexed where they lie.

An image that is stored neither compressed nor encoded lies in the file as it is; the images of
other files are copied to tar shards in the folder `images` beside the index.
"""

import os
import re
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from data.formats.parquet_file import Columns, Footer, inspect
from data.indexing.archived import expand
from data.indexing.source import Source, Survey, add_reading_arguments, root_for
from data.indexing.store import IMAGES
from data.indexing.survey import shown
from data.indexing.units import ReadingUnit
from data.sources.parquet.shard import refuse_foreign_images
from data.sources.parquet.units import CopiedFileUnit, RowGroupUnit
from data.sources.webdataset import read_classes

IDENTIFIER = re.compile(r"[\w.-]+")
FOLDER_OF_ALL = "data"
"""What the folder of Parquet files is called in every dataset: it says nothing."""

Footers = Mapping[str, Sequence[Footer]]
"""The files of each split."""


@dataclass(frozen=True, slots=True)
class Classes:
    """What labels stand for; `ids` is None where nothing tells how many there are."""

    ids: tuple[str, ...] | None
    names: tuple[str, ...]


def survey(
    splits: Mapping[str, Sequence[Path]],
    columns: Columns,
    *,
    out: Path,
    class_ids: tuple[str, ...] | None,
) -> Survey:
    """Read the footers of the files of each split; a file is copied only if it has to be.

    Raise `ValueError` for a file that cannot be used, and for files that do not go together.
    """
    paths = _located(splits)
    footers = {split: [inspect(path, columns) for path in paths[split]] for split in paths}
    _refuse_empty(footers)
    classes = _classes([footer for each in footers.values() for footer in each], class_ids)
    copied = [footer for each in footers.values() for footer in each if footer.obstacle]
    if copied:
        refuse_foreign_images(out)
    folder = _common([path for each in paths.values() for path in each])
    layout = _Layout(_base(footers, out), out, None if classes.ids is None else len(classes.ids))
    return Survey(
        name=folder.parent.name if folder.name == FOLDER_OF_ALL else folder.name,
        root=root_for(layout.base, out),
        splits={split: layout.units(split, each) for split, each in footers.items()},
        classes=classes.ids,
        class_names=classes.names,
        notes=_notes(copied, out),
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """How files become units: `base` is the dataset's root, in full."""

    base: Path
    out: Path
    classes: int | None

    def units(self, split: str, footers: Sequence[Footer]) -> list[ReadingUnit]:
        folder = _common([footer.file.path for footer in footers])
        units: dict[str, list[ReadingUnit]] = {}
        for footer in footers:
            if footer.obstacle:
                path = footer.file.path.relative_to(folder)
                unit = self._copied(footer, str(Path(split, path.with_suffix(".tar"))))
                if unit.name in units:
                    raise ValueError(
                        f"{footer.file.path}: another file of {split} has this name, "
                        "but for its ending; rename one of them"
                    )
                units[unit.name] = [unit]
            else:
                name = str(footer.file.path.relative_to(self.base))
                units[name] = [
                    RowGroupUnit(footer.file, name, group, self.classes)
                    for group in footer.row_groups
                ]
        return [unit for each in units.values() for unit in each]

    def _copied(self, footer: Footer, shard: str) -> CopiedFileUnit:
        name = str((self.out.resolve() / IMAGES / shard).relative_to(self.base))
        groups = footer.row_groups
        return CopiedFileUnit(footer.file, groups, self.out, shard, name, self.classes)


def _located(splits: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """Return the paths in full; a link stays one, for its name says more than that of its file."""
    seen: set[Path] = set()
    located: dict[str, list[Path]] = {}
    for split, paths in splits.items():
        located[split] = [path.parent.resolve() / path.name for path in paths]
        for given, path in zip(paths, located[split], strict=True):
            if not path.is_file():  # opening a named pipe would wait for ever
                raise ValueError(f"{given} is no file; give Parquet files: '{given}/*.parquet'")
            if path.resolve() in seen:
                raise ValueError(f"{given} is given twice; give each file once, for one split")
            seen.add(path.resolve())
            try:
                str(path).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{given}: its name is not UTF-8; rename it") from error
    return located


def _refuse_empty(footers: Footers) -> None:
    for split, each in footers.items():
        if not any(footer.row_groups for footer in each):
            files = shown([str(footer.file.path) for footer in each])
            raise ValueError(f"the files of --{split} hold no rows ({files}); give others")


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))


def _base(footers: Footers, out: Path) -> Path:
    """Return the nearest folder that holds all files with images, ours in `out` included."""
    every = [footer for each in footers.values() for footer in each]
    folders = [footer.file.path.parent for footer in every if not footer.obstacle]
    if len(folders) < len(every):
        folders.append(out.resolve())
    return Path(os.path.commonpath(folders))


def _classes(footers: Sequence[Footer], ids: tuple[str, ...] | None) -> Classes:
    """Settle what the labels stand for; `ids`, if given, overrides what the files say."""
    first = footers[0]
    same = [footer.class_names == first.class_names for footer in footers]
    names = first.class_names or ()
    if ids is None:
        if not all(same):
            raise ValueError(_disagreement(first, footers[same.index(False)]))
        return Classes(_ids(names), names)
    if not all(same):
        return Classes(ids, ())
    if names and len(names) != len(ids):
        raise ValueError(
            f"--classes has {len(ids):,} classes, and {first.file.path} names {len(names):,}; "
            "give one for each label"
        )
    return Classes(ids, names)


def _ids(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Take names that could be identifiers for these, and number the classes otherwise."""
    if not names:
        return None
    if len(set(names)) == len(names) and all(map(IDENTIFIER.fullmatch, names)):
        return names
    return tuple(str(label) for label in range(len(names)))


def _disagreement(one: Footer, other: Footer) -> str:
    remedy = "give the id of every class with --classes FILE if the labels mean the same"
    ours, theirs = one.class_names or (), other.class_names or ()
    if len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        label, (our, their) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        what = f"label {label} is {their!r}, where {one.file.path} has {our!r}"
    else:
        what = f"it names {len(theirs):,} classes, where {one.file.path} names {len(ours):,}"
    return f"{other.file.path}: {what}; {remedy}"


def _notes(copied: Sequence[Footer], out: Path) -> tuple[str, ...]:
    alike: defaultdict[str, list[Footer]] = defaultdict(list)
    for footer in copied:
        alike[f"{footer.file.columns.image}.bytes of {{}} files is {footer.obstacle}"].append(
            footer
        )
    return tuple(
        f"{what.format(f'{len(files):,}')}: their images were copied to {out / IMAGES}, "
        f"{decimal(sum(group.content_size for file in files for group in file.row_groups))}"
        for what, files in alike.items()
    )


def _add_arguments(parser: ArgumentParser) -> None:
    for split, images in (("train", "training"), ("val", "validation")):
        parser.add_argument(
            f"--{split}",
            nargs="+",
            action="extend",
            required=True,
            metavar="FILES",
            help=f"Parquet files of {images} images, or patterns: 'data/{split}-*.parquet'",
        )
    for column, what in (("image", "struct with `bytes`"), ("label", "whole number")):
        parser.add_argument(
            f"--{column}-column",
            default=column,
            metavar="NAME",
            help=f"column of the {column}, a {what} (default: %(default)s)",
        )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class ids, one a line in order of labels"
    )
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Survey:
    given = arguments
    return survey(
        {"train": expand(given.train), "val": expand(given.val)},
        Columns(given.image_column, given.label_column),
        out=given.out,
        class_ids=read_classes(given.classes),
    )


SOURCE = Source("parquet", "Hugging Face's Parquet files", _add_arguments, _run)
