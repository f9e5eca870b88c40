"""Parquet files in the layout of Hugging Face, their images indexed in place if possible.

An image that is neither compressed nor encoded is in the file byte for byte. The images of other
files are copied to tars in the folder `images` beside the index.
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
from data.indexing.archives import expand
from data.indexing.listing import Listing
from data.indexing.paths import require_utf8, root_for, shown
from data.indexing.source import Source, add_reading_arguments, read_classes
from data.indexing.unit import ReadingUnit
from data.indexing.written_images import IMAGES, require_own_images
from data.sources.parquet.row_groups import CopiedFileUnit, RowGroupUnit
from pipeline.system.command import plural

IDENTIFIER = re.compile(r"[\w.-]+")
FOLDER_OF_ALL = "data"
"""The name of the folder of Parquet files in every dataset, which does not identify it."""

Footers = Mapping[str, Sequence[Footer]]
"""The files of each split."""


@dataclass(frozen=True, slots=True)
class LabelMeanings:
    """The meaning of labels; `ids` is None if the number of classes is not known."""

    ids: tuple[str, ...] | None
    names: tuple[str, ...]


def list_parquet(
    splits: Mapping[str, Sequence[Path]],
    columns: Columns,
    *,
    out: Path,
    class_ids: tuple[str, ...] | None,
    replace: bool = False,
) -> Listing:
    """Read the footers of the files of each split; a file is copied only if necessary.

    Copies replace those of another dataset in `out` only with `replace`.
    Raises `ValueError` for a file that cannot be used, and for files that contradict each other.
    """
    paths = _located(splits)
    footers = {split: [inspect(path, columns) for path in paths[split]] for split in paths}
    _refuse_empty(footers)
    classes = _classes([footer for each in footers.values() for footer in each], class_ids)
    copied = [footer for each in footers.values() for footer in each if footer.obstacle]
    if copied:
        require_own_images(out)
    folder = _common([path for each in paths.values() for path in each])
    count = None if classes.ids is None else len(classes.ids)
    layout = _Layout(_base(footers, out), out, count, replace)
    return Listing(
        name=folder.parent.name if folder.name == FOLDER_OF_ALL else folder.name,
        root=root_for(layout.base, out),
        splits={split: layout.units(split, each) for split, each in footers.items()},
        classes=classes.ids,
        class_names=classes.names,
        notes=_notes(copied, out),
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """How files become units: `base` is the absolute root of the dataset."""

    base: Path
    out: Path
    classes: int | None
    replace: bool

    def units(self, split: str, footers: Sequence[Footer]) -> list[ReadingUnit]:
        folder = _common([footer.file.path for footer in footers])
        units: dict[str, list[ReadingUnit]] = {}
        for footer in footers:
            if footer.obstacle:
                path = footer.file.path.relative_to(folder)
                unit = self._copied(footer, str(Path(split, path.with_suffix(".tar"))))
                if unit.name in units:
                    raise ValueError(
                        f"{footer.file.path}: another file of {split} has the same name, "
                        "except for its ending; rename one of them"
                    )
                units[unit.name] = [unit]
            else:
                name = str(footer.file.path.relative_to(self.base))
                units[name] = [
                    RowGroupUnit(footer.file, name, group, self.classes)
                    for group in footer.row_groups
                ]
        return [unit for each in units.values() for unit in each]

    def _copied(self, footer: Footer, copy: str) -> CopiedFileUnit:
        name = str((self.out.resolve() / IMAGES / copy).relative_to(self.base))
        groups = footer.row_groups
        how = self.classes, self.replace
        return CopiedFileUnit(footer.file, groups, self.out, copy, name, *how)


def _located(splits: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """Return absolute paths; a link keeps its own name, which says more than its target's."""
    seen: set[Path] = set()
    located: dict[str, list[Path]] = {}
    for split, paths in splits.items():
        located[split] = [path.parent.resolve() / path.name for path in paths]
        for given, path in zip(paths, located[split], strict=True):
            if not path.is_file():  # opening a named pipe would wait forever
                raise ValueError(f"{given} is not a file; give Parquet files: '{given}/*.parquet'")
            if path.resolve() in seen:
                raise ValueError(f"{given} is given twice; give each file once, for one split")
            seen.add(path.resolve())
            require_utf8(str(path))
    return located


def _refuse_empty(footers: Footers) -> None:
    for split, each in footers.items():
        if not any(footer.row_groups for footer in each):
            files = shown([str(footer.file.path) for footer in each])
            raise ValueError(f"the files of --{split} have no rows ({files}); give others")


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))


def _base(footers: Footers, out: Path) -> Path:
    """Return the nearest folder that contains all files with images, copies in `out` included."""
    every = [footer for each in footers.values() for footer in each]
    folders = [footer.file.path.parent for footer in every if not footer.obstacle]
    if len(folders) < len(every):
        folders.append(out.resolve())
    return Path(os.path.commonpath(folders))


def _classes(footers: Sequence[Footer], ids: tuple[str, ...] | None) -> LabelMeanings:
    """Return the meaning of the labels; `ids`, if given, overrides the files."""
    first = footers[0]
    same = [footer.class_names == first.class_names for footer in footers]
    names = first.class_names or ()
    if ids is None:
        if not all(same):
            raise ValueError(_disagreement(first, footers[same.index(False)]))
        return LabelMeanings(_ids(names), names)
    if not all(same):
        return LabelMeanings(ids, ())
    if names and len(names) != len(ids):
        raise ValueError(
            f"--classes has {plural(len(ids), 'class', 'classes')}, but {first.file.path} has"
            f" {len(names):,}; give one for each label"
        )
    return LabelMeanings(ids, names)


def _ids(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the names if they can be identifiers; otherwise number the classes."""
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
        what = f"label {label} is {their!r}, but {one.file.path} has {our!r}"
    else:
        names = plural(len(theirs), "class", "classes")
        what = f"it names {names}, but {one.file.path} names {len(ours):,}"
    return f"{other.file.path}: {what}; {remedy}"


def _notes(copied: Sequence[Footer], out: Path) -> tuple[str, ...]:
    alike: defaultdict[str, list[Footer]] = defaultdict(list)
    for footer in copied:
        alike[f"{footer.file.columns.image}.bytes is {footer.obstacle}"].append(footer)
    return tuple(
        f"{what} in {plural(len(files), 'file')}: the images were copied to {out / IMAGES}, "
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
            help=f"column of the {column}s, a {what} (default: %(default)s)",
        )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="class ids, one a line, in the order of the labels",
    )
    add_reading_arguments(parser)


def _prepare(arguments: Namespace) -> Listing:
    return list_parquet(
        {"train": expand(arguments.train), "val": expand(arguments.val)},
        Columns(arguments.image_column, arguments.label_column),
        out=arguments.out,
        class_ids=read_classes(arguments.classes),
        replace=arguments.may_replace,
    )


SOURCE = Source("parquet", "Parquet files in the layout of Hugging Face", _add_arguments, _prepare)
