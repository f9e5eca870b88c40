"""WebDataset shards, indexed where they lie: tars in which files of one key make one sample.

A key is a name up to its first dot. `key.jpg` and `key.cls` (the label as text), or `key.json` with
the label in one of its fields, may come in any order; where there are both, they must agree.
"""

import json
import re
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.formats.tar import TarMember, walk
from data.indexing.archived import Archive, Gathered, expand, find_archives
from data.indexing.images import EXTENSIONS
from data.indexing.source import Source, Survey, add_reading_arguments
from data.indexing.survey import LABEL_LIMIT
from data.indexing.units import Found

LABEL = re.compile(rb"\s*([0-9]{1,9})\s*")


@dataclass(frozen=True, slots=True)
class WebDatasetShard:
    """One tar; `json_field` holds the label where it is in `key.json`."""

    archive: Archive
    json_field: str
    classes: int | None

    @property
    def key(self) -> str:
        """See `Unit`."""
        return json.dumps(["webdataset", self.archive.key, self.json_field, self.classes])

    @property
    def size(self) -> int:
        """See `Unit`."""
        return self.archive.file.size

    def read(self) -> Found:
        """See `Unit`; images wait for their labels until the end of the shard."""
        gathered = Gathered(self.archive)
        images: dict[str, TarMember] = {}
        labels: dict[str, int] = {}
        usable: list[str] = []
        for member, content in walk(self.archive.path):
            key, ending = split_name(member.name)
            if ending in EXTENSIONS:
                if images.setdefault(key, member) is not member:
                    raise self._fault(member, f"is a second image of sample {key!r}")
                if gathered.add(member, content):
                    usable.append(key)
            elif ending in {"cls", "json"}:
                label = self._label(member, ending, bytes(content))
                if label is not None and labels.setdefault(key, label) != label:
                    raise self._fault(member, f"says {label}, but {labels[key]} was said before")
        self._expect_pairs(images, labels)
        return gathered.found([labels[key] for key in usable])

    def _label(self, member: TarMember, ending: str, content: bytes) -> int | None:
        """Return a label, or None where a `.json` says nothing of it."""
        value = _field(content, self.json_field) if ending == "json" else _number(content)
        if value is None and ending == "json":
            return None
        bound = LABEL_LIMIT if self.classes is None else self.classes
        if type(value) is not int or not 0 <= value < bound:
            said = content if ending == "cls" else value
            raise self._fault(
                member, f"holds {said!r:.40}, where a label from 0 to {bound - 1:,} should be"
            )
        return value

    def _expect_pairs(self, images: dict[str, TarMember], labels: dict[str, int]) -> None:
        for key, member in images.items():
            if key not in labels:
                wanted = f"a .cls of its name, or a .json with the field {self.json_field!r}"
                raise self._fault(member, f"has no label ({wanted})")
        for key in labels:
            if key not in images:
                raise ValueError(
                    f"{self.archive.path}: sample {key!r} has a label but no image "
                    f"({', '.join(sorted(EXTENSIONS))}); write the shard again"
                )

    def _fault(self, member: TarMember, reason: str) -> ValueError:
        return ValueError(f"{self.archive.path}: {member.name!r} {reason}; write the shard again")


def _number(content: bytes) -> int | None:
    found = LABEL.fullmatch(content)
    return int(found[1]) if found else None


def _field(content: bytes, name: str) -> object:
    """Return a field of a JSON object, None if there is no such field or object."""
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value.get(name) if isinstance(value, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def split_name(name: str) -> tuple[str, str]:
    """Return the key of a member and its ending in small letters: the parts about the first dot.

    Hidden files such as `._1.jpg` have neither.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    if not stem:
        return "", ""
    return f"{folder}{slash}{stem}", ending.lower()


def survey(
    splits: dict[str, list[Path]], *, out: Path, json_field: str, classes: tuple[str, ...] | None
) -> Survey:
    """List the shards of each split."""
    every = [path for paths in splits.values() for path in paths]
    root, archives = find_archives(every, out)
    known = None if classes is None else len(classes)
    shards = iter([WebDatasetShard(archive, json_field, known) for archive in archives])
    units = {split: [next(shards) for _ in paths] for split, paths in splits.items()}
    return Survey("webdataset", root, units, classes)


def read_classes(path: Path | None) -> tuple[str, ...] | None:
    """Read one class a line, in the order of the labels; None where no file is given."""
    if path is None:
        return None
    try:
        classes = tuple(path.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--classes {path} cannot be read ({error}); give one class a line"
        ) from error
    classes = tuple(name.strip() for name in classes if name.strip())
    if len(set(classes)) < len(classes) or not classes:
        raise ValueError(f"--classes {path} must name each class once, one a line")
    return classes


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "train",
        nargs="+",
        metavar="SHARDS",
        help="training shards: 'train-{000..127}.tar' or *.tar",
    )
    parser.add_argument("--val", nargs="+", required=True, metavar="SHARDS", help="as for training")
    parser.add_argument(
        "--json-field", default="label", metavar="NAME", help="the label in .json (default label)"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names, one a line in order of labels"
    )
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Survey:
    given = arguments
    return survey(
        {"train": expand(given.train), "val": expand(given.val)},
        out=given.out,
        json_field=given.json_field,
        classes=read_classes(given.classes),
    )


SOURCE = Source("webdataset", "WebDataset shards, in place", _add_arguments, _run)
