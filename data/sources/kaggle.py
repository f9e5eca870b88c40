"""ImageNet as Kaggle packs it: ILSVRC/Data/CLS-LOC and two tables, indexed where it lies."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from data.indexing.images import ImageFile, in_units
from data.indexing.source import Source, Survey, add_reading_arguments, root_for
from data.indexing.survey import shown
from data.sources.imagefolder import (
    class_names,
    ignored,
    image_file,
    list_images,
    refuse_inside,
    walk,
)
from data.sources.imagenet import PROMISE

IMAGES = "ILSVRC/Data/CLS-LOC"
SOLUTION = "LOC_val_solution.csv"
MAPPING = "LOC_synset_mapping.txt"
SOLUTION_LINE = re.compile(r"([^,\s]+),(n[0-9]{8})(?: .*)?")
"""`ILSVRC2012_val_00000001,n01751748 111 108 288 251 `: an image, its class and where it is seen"""
MAPPING_LINE = re.compile(r"(n[0-9]{8}) (.+)")
"""`n01440764 tench, Tinca tinca`"""
WNID = re.compile(r"n[0-9]{8}")
ENDINGS = frozenset({"jpeg", "jpg"})


def survey(source: Path, out: Path, *, partial: bool) -> Survey:
    """List the images; raise `ValueError` if folders and tables do not fit together."""
    images = source / IMAGES
    _require_layout(source)
    refuse_inside(out, images, ("train", "val"))
    words = read_mapping(source / MAPPING)
    classes = _classes(images / "train", words)
    train = list_images(images, "train", classes)
    labels = read_solution(source / SOLUTION, classes)
    val, others = _validation_images(images, labels)
    if not partial:
        _expect_all(images / "val", labels, val)
    return Survey(
        name="imagenet",
        root=root_for(images, out),
        splits={"train": in_units(images, train.images), "val": in_units(images, [*val.values()])},
        classes=classes,
        class_names=tuple(words[wnid] for wnid in classes) if words else (),
        notes=ignored([*train.others, *others]),
        promise=PROMISE,
    )


def read_mapping(path: Path) -> dict[str, str]:
    """Return the classes in words by WordNet id; nothing if there is no such table.

    Raise `ValueError` for a line that is none: `n01440764 tench, Tinca tinca`.
    """
    if not path.is_file():
        return {}
    words: dict[str, str] = {}
    for place, line in _lines(path):
        found = MAPPING_LINE.fullmatch(line)
        if not found or found[1] in words:
            raise ValueError(f"{place}: {line[:60]!r} does not name a new class; fetch it again")
        words[found[1]] = found[2]
    return words


def read_solution(path: Path, classes: Collection[str]) -> dict[str, int]:
    """Return the label of each validation image by its name without ending.

    Raise `ValueError` for a line that is none: `ILSVRC2012_val_00000001,n01751748 111 108 ...`.
    """
    labels = {wnid: label for label, wnid in enumerate(classes)}
    found: dict[str, int] = {}
    for place, line in _lines(path):
        if line.startswith("ImageId,"):
            continue
        row = SOLUTION_LINE.fullmatch(line)
        if not row or row[2] not in labels or row[1] in found:
            raise ValueError(
                f"{place}: {line[:60]!r} does not name a new image and a class; fetch it again"
            )
        found[row[1]] = labels[row[2]]
    return found


def _require_layout(source: Path) -> None:
    there = {
        source / IMAGES / "train": (source / IMAGES / "train").is_dir(),
        source / IMAGES / "val": (source / IMAGES / "val").is_dir(),
        source / SOLUTION: (source / SOLUTION).is_file(),
    }
    missing = [str(needed) for needed, is_there in there.items() if not is_there]
    if missing:
        raise ValueError(
            f"there is no {' and no '.join(missing)}; give the folder that holds ILSVRC/ and "
            f"{SOLUTION}, unpacked"
        )


def _classes(train: Path, words: Mapping[str, str]) -> tuple[str, ...]:
    """Return all WordNet ids, sorted, also those that a part of the images does without."""
    folders = class_names(train)
    known = set(words) or {name for name in folders if WNID.fullmatch(name)}
    strange = [name for name in folders if name not in known]
    if strange:
        raise ValueError(
            f"{train} holds {shown(strange)}, no WordNet ids of {MAPPING}; remove what is not "
            "ImageNet's"
        )
    return tuple(sorted(known))


def _validation_images(
    images: Path, labels: Mapping[str, int]
) -> tuple[dict[str, ImageFile], list[str]]:
    """Return the images by their names without ending, and the paths of other files."""
    found: dict[str, ImageFile] = {}
    others: list[str] = []
    for path, entry in walk(images, "val"):
        stem, _, ending = entry.name.rpartition(".")
        if ending.lower() not in ENDINGS:
            others.append(path)
        elif stem not in labels:
            raise ValueError(f"{images / path} is not in {SOLUTION}; fetch both again")
        elif stem in found:
            raise ValueError(f"{images / path} is {found[stem].path} once more; remove one")
        else:
            found[stem] = image_file(path, entry, labels[stem])
    return found, others


def _expect_all(folder: Path, labels: Collection[str], found: Collection[str]) -> None:
    missing = [name for name in labels if name not in found]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing):,} images of {SOLUTION}: {shown(missing)}; unpack it "
            "again, or accept a part with --partial"
        )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the content of each line of a table."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            yield f"{path}:{number}", line.strip()


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SRC", help=f"holds {IMAGES}/ and {SOLUTION}, unpacked"
    )
    add_reading_arguments(parser)


def _run(arguments: Namespace) -> Survey:
    return survey(arguments.source, arguments.out, partial=arguments.partial)


SOURCE = Source("kaggle", "ImageNet as Kaggle packs it, unpacked", _add_arguments, _run)
