"""ImageNet as Kaggle packs it, ILSVRC/Data/CLS-LOC and two tables, indexed in place."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from data.indexing.class_folders import (
    Met,
    class_names,
    image_file,
    list_images,
    refuse_inside,
    walk_files,
)
from data.indexing.image_files import ImageFile, in_units
from data.indexing.listing import IMAGENET_COUNTS, Listing
from data.indexing.paths import root_for, shown
from data.indexing.source import Source, add_reading_arguments
from pipeline.system.command import plural

IMAGES = "ILSVRC/Data/CLS-LOC"
SOLUTION = "LOC_val_solution.csv"
MAPPING = "LOC_synset_mapping.txt"
SOLUTION_LINE = re.compile(r"([^,\s]+),(n[0-9]{8})(?: .*)?")
"""`ILSVRC2012_val_00000001,n01751748 111 108 288 251 `: an image, its class and bounding boxes"""
MAPPING_LINE = re.compile(r"(n[0-9]{8}) (.+)")
"""`n01440764 tench, Tinca tinca`"""
WNID = re.compile(r"n[0-9]{8}")
ENDINGS = frozenset({"jpeg", "jpg"})


def list_kaggle(source: Path, out: Path, *, partial: bool) -> Listing:
    """List the images; raises `ValueError` if folders and tables contradict each other."""
    images = source / IMAGES
    _require_layout(source)
    refuse_inside(out, images, ("train", "val"))
    words = read_mapping(source / MAPPING)
    classes = _classes(images / "train", words)
    met = Met()
    train = list_images(images, "train", classes, met)
    labels = read_solution(source / SOLUTION, classes)
    val = _validation_images(images, labels, met)
    missing = _missing(images / "val", labels, val)
    if missing and not partial:
        raise ValueError(f"{missing}; unpack it again, or accept it with --partial")
    return Listing(
        name="imagenet",
        root=root_for(images, out),
        splits={"train": in_units(images, train), "val": in_units(images, [*val.values()])},
        classes=classes,
        class_names=tuple(words[wnid] for wnid in classes) if words else (),
        notes=(*met.notes(), *([missing] if missing else [])),
        expected=IMAGENET_COUNTS,
    )


def read_mapping(path: Path) -> dict[str, str]:
    """Return the words of each class by WordNet id; empty if the table is missing.

    Raises `ValueError` for a line that is not like `n01440764 tench, Tinca tinca`.
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

    Raises `ValueError` for a line that is not like
    `ILSVRC2012_val_00000001,n01751748 111 108 ...`.
    """
    labels = {wnid: label for label, wnid in enumerate(classes)}
    found: dict[str, int] = {}
    for place, line in _lines(path):
        if line.startswith("ImageId,"):
            continue
        row = SOLUTION_LINE.fullmatch(line)
        if not row or row[2] not in labels or row[1] in found:
            raise ValueError(
                f"{place}: {line[:60]!r} does not name a new image and its class; fetch it again"
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
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; give the"
            f" folder that contains ILSVRC/, unpacked, and {SOLUTION}"
        )


def _classes(train: Path, words: Mapping[str, str]) -> tuple[str, ...]:
    """Return all WordNet ids, sorted, including those without images."""
    folders = class_names(train)
    known = set(words) or {name for name in folders if WNID.fullmatch(name)}
    strange = [name for name in folders if name not in known]
    if strange:
        raise ValueError(
            f"{train} contains {shown(strange)}, not WordNet ids from {MAPPING}; remove everything"
            " that is not ImageNet"
        )
    return tuple(sorted(known))


def _validation_images(images: Path, labels: Mapping[str, int], met: Met) -> dict[str, ImageFile]:
    """Return the images by their names without ending."""
    found: dict[str, ImageFile] = {}
    for path, entry in walk_files(images, "val", met):
        stem, _, ending = entry.name.rpartition(".")
        if ending.lower() not in ENDINGS:
            met.others.append(path)
        elif stem not in labels:
            raise ValueError(f"{images / path} is not in {SOLUTION}; fetch both again")
        elif stem in found:
            raise ValueError(f"{images / path} is a second {found[stem].path}; remove one")
        else:
            found[stem] = image_file(path, entry, labels[stem])
    return found


def _missing(folder: Path, labels: Collection[str], found: Collection[str]) -> str:
    """Return which validation images are missing; empty if there are none."""
    missing = [name for name in labels if name not in found]
    if not missing:
        return ""
    return f"{folder} lacks {plural(len(missing), 'image')} of {SOLUTION}: {shown(missing)}"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the content of each line of a table."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            yield f"{path}:{number}", line.strip()


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SRC", help=f"the folder with {IMAGES}/ and {SOLUTION}"
    )
    add_reading_arguments(parser)


def _prepare(arguments: Namespace) -> Listing:
    return list_kaggle(arguments.source, arguments.out, partial=arguments.partial)


SOURCE = Source("kaggle", "ImageNet as Kaggle packs it, unpacked", _add_arguments, _prepare)
