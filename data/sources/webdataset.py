"""WebDataset shards, indexed in place: tars in which files with the same key are one sample.

A key is a name up to its first dot or, with --last-dot, up to its last. `key.jpg` and `key.cls`
(the label as text), or `key.json` with the label in one of its fields, may come in any order; if a
sample has both, they must agree. Other files are ignored and counted.
"""

import json
import re
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.formats.tar import TarMember, walk
from data.indexing.archives import Archive, GatheredImages, expand, find_archives
from data.indexing.image_files import EXTENSIONS
from data.indexing.listing import Listing
from data.indexing.reading import LABEL_LIMIT
from data.indexing.source import Source, add_reading_arguments, read_classes
from data.indexing.unit import UnitContent
from pipeline.system.command import plural

LABELS = frozenset({"cls", "json"})
"""The endings of names of labels, in lower case."""
PLAIN_ENDING = re.compile(r"[a-z.]+")
LABEL = re.compile(rb"\s*([0-9]{1,9})\s*")


@dataclass(frozen=True, slots=True)
class WebDatasetShard:
    """One tar; `json_field` is the field of the label in `key.json`."""

    archive: Archive
    json_field: str
    classes: int | None
    last_dot: bool = False
    """Keys end at the last dot of a name, not at the first."""

    @property
    def key(self) -> str:
        """See `ReadingUnit`."""
        how = [self.json_field, self.classes, *(["last dot"] if self.last_dot else [])]
        return json.dumps(["webdataset", self.archive.key, *how])

    @property
    def size(self) -> int:
        """See `ReadingUnit`."""
        return self.archive.file.size

    def read(self) -> UnitContent:
        """See `ReadingUnit`; images and labels are matched at the end of the shard."""
        gathered = GatheredImages(self.archive)
        images: dict[str, TarMember] = {}
        labels: dict[str, int] = {}
        usable: list[str] = []
        others: list[str] = []
        for member, content in walk(self.archive.path):
            key, ending = split_name(member.name, last_dot=self.last_dot)
            if ending in EXTENSIONS:
                if images.setdefault(key, member) is not member:
                    raise self._fault(member, f"is a second image of sample {key!r}")
                if gathered.add(member, content):
                    usable.append(key)
            elif ending in LABELS:
                label = self._label(member, ending, bytes(content))
                if label is not None and labels.setdefault(key, label) != label:
                    raise self._fault(member, f"has label {label}, but it was {labels[key]} before")
            else:
                others.append(member.name)
        self._expect_pairs(images, labels)
        self._refuse_lost(others, images)
        endings = Counter(_ending(name) for name in others)
        return gathered.content([labels[key] for key in usable], endings)

    def _label(self, member: TarMember, ending: str, content: bytes) -> int | None:
        """Return a label; None if a `.json` has no label."""
        value = _field(content, self.json_field) if ending == "json" else _number(content)
        if value is None and ending == "json":
            return None
        bound = LABEL_LIMIT if self.classes is None else self.classes
        if type(value) is not int or not 0 <= value < bound:
            wrong = content if ending == "cls" else value
            raise self._fault(
                member, f"contains {wrong!r:.40}, not a label from 0 to {bound - 1:,}"
            )
        return value

    def _expect_pairs(self, images: dict[str, TarMember], labels: dict[str, int]) -> None:
        for key, member in images.items():
            if key not in labels:
                wanted = f"a .cls with its name, or a .json with the field {self.json_field!r}"
                raise self._fault(member, f"has no label ({wanted})")
        for key in labels:
            if key not in images:
                raise ValueError(
                    f"{self.archive.path}: sample {key!r} has a label but no image "
                    f"({', '.join(sorted(EXTENSIONS))}); write the shard again"
                )

    def _refuse_lost(self, others: Sequence[str], images: Collection[str]) -> None:
        """Raises `ValueError` if `others` contain samples whose keys have dots."""
        lost = lost_samples(others, images)
        if lost:
            raise ValueError(
                f"{self.archive.path}: {plural(len(lost), 'file')} such as {lost[0]!r} would be"
                " lost, because a key ends at its first dot; write the shard again with other"
                " names, or add --last-dot to let every key end at its last dot"
            )

    def _fault(self, member: TarMember, reason: str) -> ValueError:
        return ValueError(f"{self.archive.path}: {member.name!r} {reason}; write the shard again")


def _number(content: bytes) -> int | None:
    found = LABEL.fullmatch(content)
    return int(found[1]) if found else None


def _field(content: bytes, name: str) -> object:
    """Return a field of a JSON object; None if the field is missing or this is not an object."""
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value.get(name) if isinstance(value, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def split_name(name: str, *, last_dot: bool = False) -> tuple[str, str]:
    """Split a name at its first or last dot into the key and the ending, in lower case.

    Hidden files such as `._1.jpg` have neither.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.rpartition(".") if last_dot else base.partition(".")
    if base.startswith(".") or not base:
        return "", ""
    if last_dot and not dot:
        stem, ending = base, ""
    return f"{folder}{slash}{stem}", ending.lower()


def lost_samples(others: Sequence[str], images: Collection[str]) -> list[str]:
    """Return those of the files named `others` that would be samples if keys ended at last dots.

    They are images and labels with the same name up to the last dot, such as `v1.5.jpg` and
    `v1.5.cls`, and images and labels without an image in `images`, the keys of the others. The mask
    `a.seg.png` of the image `a.jpg` is not one of them.
    """
    endings: dict[str, set[str]] = {}
    for name in others:
        stem, ending = split_name(name, last_dot=True)
        endings.setdefault(stem, set()).add(ending)
    lost: list[str] = []
    for name in others:
        stem, ending = split_name(name, last_dot=True)
        is_pair = bool(endings[stem] & EXTENSIONS and endings[stem] & LABELS)
        is_alone = ending in EXTENSIONS | {"cls"} and split_name(name)[0] not in images
        if stem and ending in EXTENSIONS | LABELS and (is_pair or is_alone):
            lost.append(name)
    return lost


def _ending(name: str) -> str:
    """Return the kind of a file by its name: `.txt`, `.seg.png`; few kinds, whatever the keys."""
    key, ending = split_name(name)
    if not key:
        return "hidden"
    if not PLAIN_ENDING.fullmatch(ending):
        ending = split_name(name, last_dot=True)[1]
    return f".{ending}" if ending else "without an ending"


def list_shards(
    splits: dict[str, list[Path]],
    *,
    out: Path,
    json_field: str,
    classes: tuple[str, ...] | None,
    last_dot: bool = False,
) -> Listing:
    """List the shards of each split."""
    every = [path for paths in splits.values() for path in paths]
    root, archives = find_archives(every, out)
    known = None if classes is None else len(classes)
    shards = iter([WebDatasetShard(archive, json_field, known, last_dot) for archive in archives])
    units = {split: [next(shards) for _ in paths] for split, paths in splits.items()}
    return Listing("webdataset", root, units, classes)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "train",
        nargs="+",
        metavar="SHARDS",
        help="training shards, such as 'train-{000..127}.tar' or 'train-*.tar'",
    )
    parser.add_argument(
        "--val", nargs="+", required=True, metavar="SHARDS", help="validation shards"
    )
    parser.add_argument(
        "--json-field",
        default="label",
        metavar="NAME",
        help="field of the label in .json files (default: %(default)s)",
    )
    parser.add_argument(
        "--last-dot",
        action="store_true",
        help="keys end at the last dot of a name, not at the first",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="class names, one a line, in the order of the labels",
    )
    add_reading_arguments(parser)


def _prepare(arguments: Namespace) -> Listing:
    return list_shards(
        {"train": expand(arguments.train), "val": expand(arguments.val)},
        out=arguments.out,
        json_field=arguments.json_field,
        classes=read_classes(arguments.classes),
        last_dot=arguments.last_dot,
    )


SOURCE = Source("webdataset", "WebDataset shards, in place", _add_arguments, _prepare)
