"""ImageNet (ILSVRC2012) from its official archives, indexed in place.

The training archive is a tar of 1,000 tars, one for each class, named by its WordNet id. The
validation archive is flat; the development kit has the class of each of its images. Labels are
0..999 in the order of the sorted WordNet ids, as everywhere in the field.
"""

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.formats.devkit import Devkit, read_devkit
from data.formats.tar import TarMember, list_members, walk
from data.indexing.archives import Archive, GatheredImages, find_archives
from data.indexing.listing import IMAGENET_COUNTS, Listing
from data.indexing.paths import shown
from data.indexing.source import Source, add_reading_arguments
from data.indexing.unit import UnitContent
from pipeline.system.command import plural

VALIDATION_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True, slots=True)
class ClassTar:
    """The images of one class: a tar inside the training archive."""

    archive: Archive
    tar: TarMember
    wnid: str
    label: int

    @property
    def key(self) -> str:
        """See `ReadingUnit`."""
        return json.dumps(["imagenet train", self.archive.key, self.tar, self.wnid, self.label])

    @property
    def size(self) -> int:
        """See `ReadingUnit`."""
        return self.tar.size

    def read(self) -> UnitContent:
        """See `ReadingUnit`."""
        gathered = GatheredImages(self.archive)
        start = self.tar.offset
        for member, content in walk(self.archive.path, start=start, end=start + self.tar.size):
            if not member.name.rpartition("/")[2].startswith(f"{self.wnid}_"):
                raise ValueError(
                    f"{self.archive.path}: {self.tar.name} contains {member.name!r}, whose name"
                    f" does not begin with {self.wnid}_; fetch the archive again"
                )
            gathered.add(member, content)
        return gathered.content(self.label)


@dataclass(frozen=True, slots=True)
class ValidationTar:
    """The validation archive; `labels` are in the order of the numbers of its images."""

    archive: Archive
    labels: tuple[int, ...]

    @property
    def key(self) -> str:
        """See `ReadingUnit`."""
        return json.dumps(["imagenet val", self.archive.key, self.labels])

    @property
    def size(self) -> int:
        """See `ReadingUnit`."""
        return self.archive.file.size

    def read(self) -> UnitContent:
        """See `ReadingUnit`."""
        gathered = GatheredImages(self.archive)
        seen = np.zeros(len(self.labels), np.bool_)
        labels: list[int] = []
        for member, content in walk(self.archive.path):
            number = self.number(member)
            if seen[number]:
                raise ValueError(
                    f"{self.archive.path} contains {member.name!r} twice; fetch it again"
                )
            seen[number] = True
            if gathered.add(member, content):
                labels.append(self.labels[number])
        return gathered.content(labels)

    def number(self, member: TarMember) -> int:
        """Return the place of an image among the validation images, from 0.

        Raises `ValueError` if it is not one of them.
        """
        found = VALIDATION_NAME.fullmatch(member.name)
        number = int(found[1]) - 1 if found else -1
        if 0 <= number < len(self.labels):
            return number
        raise ValueError(
            f"{self.archive.path} contains {member.name!r}, not one of"
            f" ILSVRC2012_val_00000001.JPEG .. {len(self.labels):08}; give ILSVRC2012_img_val.tar"
            " itself"
        )


def list_imagenet(train: Path, val: Path, *, devkit: Path, out: Path, partial: bool) -> Listing:
    """List the archives; raises `ValueError` if their classes are not those of the kit."""
    kit = read_devkit(devkit, partial=partial)
    root, (train_archive, val_archive) = find_archives([train, val], out)
    splits = {
        "train": _class_tars(train_archive, kit, partial=partial),
        "val": [_validation_tar(val_archive, kit)],
    }
    return Listing("imagenet", root, splits, kit.wnids, kit.class_names, expected=IMAGENET_COUNTS)


def _validation_tar(archive: Archive, kit: Devkit) -> ValidationTar:
    """Check the first image: a wrong archive is refused before the other one is read."""
    tar = ValidationTar(archive, kit.validation_labels)
    for member in list_members(archive.path):
        tar.number(member)
        break
    return tar


def _class_tars(archive: Archive, kit: Devkit, *, partial: bool) -> list[ClassTar]:
    labels = {wnid: label for label, wnid in enumerate(kit.wnids)}
    tars: dict[str, ClassTar] = {}
    for member in list_members(archive.path):
        wnid = member.name.rpartition("/")[2].removesuffix(".tar")
        if wnid not in labels or not member.name.endswith(".tar"):
            raise ValueError(
                f"{archive.path} contains {member.name!r}, not the tar of a class of the"
                " development kit; give ILSVRC2012_img_train.tar itself"
            )
        if wnid in tars:
            raise ValueError(f"{archive.path} contains {member.name!r} twice; fetch it again")
        tars[wnid] = ClassTar(archive, member, wnid, labels[wnid])
    _expect_all(archive, [wnid for wnid in kit.wnids if wnid not in tars], partial=partial)
    return list(tars.values())


def _expect_all(archive: Archive, missing: Sequence[str], *, partial: bool) -> None:
    if missing and not partial:
        raise ValueError(
            f"{archive.path} lacks {plural(len(missing), 'class', 'classes')} ({shown(missing)});"
            " fetch it again, or accept it with --partial"
        )


def _add_arguments(parser: ArgumentParser) -> None:
    for name, help_text in (
        ("train", "ILSVRC2012_img_train.tar"),
        ("val", "ILSVRC2012_img_val.tar"),
        ("devkit", "ILSVRC2012_devkit_t12.tar.gz as published; with --partial, any such kit"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE", help=help_text)
    add_reading_arguments(parser)


def _prepare(arguments: Namespace) -> Listing:
    return list_imagenet(
        arguments.train,
        arguments.val,
        devkit=arguments.devkit,
        out=arguments.out,
        partial=arguments.partial,
    )


SOURCE = Source("imagenet", "the official archives of ImageNet, in place", _add_arguments, _prepare)
