"""The official archives of ImageNet: labels are those of torchvision, mistakes are refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageNet
from torchvision.datasets import imagenet as reference

from data.formats import devkit
from data.formats.devkit import read_devkit
from data.indexing.listing import IMAGENET_COUNTS
from pipeline.dataset.index import Index, read_manifest
from tests.support.images import encode
from tests.support.official import md5, tar, write_devkit
from tests.support.packings import (
    OFFICIAL,
    WNIDS,
    WORDS,
    Pictures,
    class_members,
    make_pictures,
    official,
)
from tests.support.preparing import run

TRAIN, VAL = 21, 11


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures(TRAIN, VAL)


@pytest.fixture
def command(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Its kit is accepted as the published one."""
    made = official(tmp_path, pictures)
    monkeypatch.setattr(devkit, "MD5", md5(tmp_path / OFFICIAL[2]))
    return [*made, "--out", tmp_path / "out"]


def labels(out: Path, split: str) -> dict[bytes, int]:
    """The label of each image's bytes."""
    index = Index.open(out, split)
    found: dict[bytes, int] = {}
    for sample, (offset, size) in enumerate(zip(index.offsets, index.sizes, strict=True)):
        content = index.path(sample).read_bytes()[offset : offset + size]
        found[content] = int(index.labels[sample])
    assert len(found) == len(index)
    return found


def test_labels_are_torchvisions(
    command: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*command) == 0
    for kind, name in zip(("train", "val", "devkit"), OFFICIAL, strict=True):
        monkeypatch.setitem(reference.ARCHIVE_META, kind, (name, md5(tmp_path / name)))
    for split in ("train", "val"):
        theirs = ImageNet(tmp_path, split=split)
        expected = {Path(path).read_bytes(): label for path, label in theirs.samples}
        assert labels(tmp_path / "out", split) == expected
    manifest = read_manifest(tmp_path / "out")
    assert list(manifest.classes) == theirs.wnids
    assert [tuple(name.split(", ")) for name in manifest.class_names] == theirs.classes


def test_the_ids_of_the_kit_would_be_other_labels(command: list[object], tmp_path: Path) -> None:
    """The classic mistake, id minus one, is in range and wrong."""
    assert run(*command) == 0
    kit = read_devkit(tmp_path / OFFICIAL[2])
    ids = {wnid: number for number, wnid in enumerate(WNIDS[1::2] + WNIDS[::2])}
    mistaken = [ids[kit.wnids[label]] for label in kit.validation_labels]
    found = sorted(labels(tmp_path / "out", "val").values())
    assert set(mistaken) <= set(range(len(WNIDS)))
    assert sum(a != b for a, b in zip(mistaken, kit.validation_labels, strict=True)) > VAL / 2
    assert found == sorted(kit.validation_labels)
    assert found != sorted(mistaken)


def test_the_manifest_names_the_classes(command: list[object], tmp_path: Path) -> None:
    assert run(*command) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.name == "imagenet"
    assert dict(zip(manifest.classes, manifest.class_names, strict=True)) == WORDS


def test_all_of_imagenet_is_expected(
    command: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (IMAGENET_COUNTS.images, IMAGENET_COUNTS.classes) == (
        {"train": 1_281_167, "val": 50_000},
        1000,
    )
    command.remove("--partial")
    assert run(*command) == 2
    said = capsys.readouterr().err
    counts = [
        f"train has {TRAIN} images, but ImageNet (ILSVRC2012) has 1,281,167",
        f"val has {VAL} images, but ImageNet (ILSVRC2012) has 50,000",
        "4 classes, but ImageNet (ILSVRC2012) has 1,000",
    ]
    assert said == f"prepare.py: {'; '.join(counts)}; accept this with --partial\n"


def test_another_kit_needs_partial(
    command: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    command.remove("--partial")
    assert run(*command) == 2
    published = f"{OFFICIAL[2]} is not {OFFICIAL[2]} as published, with MD5 {devkit.MD5}; fetch"
    assert published in capsys.readouterr().err


def test_an_incomplete_source_is_noted(
    command: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes[0].startswith(
        f"note: train has {TRAIN} images, but ImageNet (ILSVRC2012) has 1,281"
    )
    assert len(notes) == 3


def test_an_incomplete_source_keeps_the_labels(
    command: list[object], tmp_path: Path, pictures: Pictures, capsys: pytest.CaptureFixture[str]
) -> None:
    write_train(tmp_path, {f"{WNIDS[3]}.tar": class_members(pictures.train, 3)})
    command.remove("--partial")
    assert run(*command) == 2
    lacks = f"lacks 3 classes ({', '.join(WNIDS[:3])}); fetch it again, or accept it with"
    assert lacks in capsys.readouterr().err
    assert run(*command, "--partial") == 0
    assert set(labels(tmp_path / "out", "train").values()) == {3}
    assert read_manifest(tmp_path / "out").classes == WNIDS
    assert f"3 classes have no training image: {WNIDS[0]}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------ mistakes


def write_train(folder: Path, tars: Mapping[str, Mapping[str, bytes]]) -> None:
    write_tar(folder, OFFICIAL[0], {name: tar(members) for name, members in tars.items()})


def write_tar(folder: Path, name: str, members: Mapping[str, bytes]) -> None:
    (folder / name).write_bytes(tar(members))


@dataclass(frozen=True)
class Wrong:
    """A way to spoil the archives in a folder, and parts of the message about it."""

    spoil: Callable[[Path, Pictures], object]
    archive: str
    says: Sequence[str]


def image(number: int) -> bytes:
    return encode(np.full((4, 4, 3), number, np.uint8))


def val_names(*numbers: int) -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{number:08d}.JPEG": image(number) for number in numbers}


def again(number: int) -> dict[str, bytes]:
    return {f"more/{name}": content for name, content in val_names(number).items()}


def swap(folder: Path, _: Pictures) -> None:
    train, val = (folder / name for name in OFFICIAL[:2])
    train.rename(folder / "aside")
    val.rename(train)
    (folder / "aside").rename(val)


def as_val(folder: Path, _: Pictures) -> None:
    (folder / OFFICIAL[1]).write_bytes((folder / OFFICIAL[0]).read_bytes())


def damage(name: str, *, at: int) -> Callable[[Path, Pictures], object]:
    def spoil(folder: Path, _: Pictures) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at : at + 8] = b"\xff" * 8
        (folder / name).write_bytes(content)

    return spoil


def cut(name: str) -> Callable[[Path, Pictures], object]:
    def spoil(folder: Path, _: Pictures) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return spoil


def other_kit(folder: Path, _: Pictures) -> None:
    wnids = [f"n{number:08d}" for number in range(4)]
    shown = [wnids[number % 4] for number in range(VAL)]
    write_devkit(folder / OFFICIAL[2], wnids=wnids, words=wnids, validation_wnids=shown)


UNKNOWN, ANOTHER = "n00000001.tar", f"{WNIDS[1]}_9.JPEG"
TRAIN_TAR, VAL_TAR, KIT = OFFICIAL
WRONG = {
    "swapped": Wrong(swap, TRAIN_TAR, ["ILSVRC2012_val_00000001.JPEG", f"give {TRAIN_TAR} itself"]),
    "train as val": Wrong(
        as_val, VAL_TAR, [f"contains '{WNIDS[2]}.tar'", "give ILSVRC2012_img_val.tar itself"]
    ),
    "unknown wnid": Wrong(
        lambda folder, _: write_train(folder, {UNKNOWN: {"n00000001_1.JPEG": image(0)}}),
        TRAIN_TAR,
        [f"contains '{UNKNOWN}', not the tar of a class"],
    ),
    "loose images": Wrong(
        lambda folder, pictures: write_tar(folder, TRAIN_TAR, class_members(pictures.train, 0)),
        TRAIN_TAR,
        [f"contains '{WNIDS[0]}_1.JPEG', not the tar of a class"],
    ),
    "other kit": Wrong(other_kit, TRAIN_TAR, [f"contains '{WNIDS[2]}.tar'", "the development kit"]),
    "class twice": Wrong(
        lambda folder, _: write_train(folder, {f"{WNIDS[0]}.tar": {}, f"more/{WNIDS[0]}.tar": {}}),
        TRAIN_TAR,
        [f"contains 'more/{WNIDS[0]}.tar' twice"],
    ),
    "of another class": Wrong(
        lambda folder, _: write_train(folder, {f"{WNIDS[0]}.tar": {ANOTHER: image(0)}}),
        TRAIN_TAR,
        [f"contains '{ANOTHER}', whose name does not begin with {WNIDS[0]}_"],
    ),
    "number twice": Wrong(
        lambda folder, _: write_tar(folder, VAL_TAR, {**val_names(1, 2), **again(2)}),
        VAL_TAR,
        ["contains 'more/ILSVRC2012_val_00000002.JPEG' twice"],
    ),
    "number too high": Wrong(
        lambda folder, _: write_tar(folder, VAL_TAR, val_names(1, VAL + 1)),
        VAL_TAR,
        [f"ILSVRC2012_val_000000{VAL + 1}.JPEG'", f".. {VAL:08}"],
    ),
    "number zero": Wrong(
        lambda folder, _: write_tar(folder, VAL_TAR, val_names(0)), VAL_TAR, ["val_00000000.JPEG'"]
    ),
    "no number": Wrong(
        lambda folder, _: write_tar(folder, VAL_TAR, {"ILSVRC2012_val_1.JPEG": image(0)}),
        VAL_TAR,
        ["'ILSVRC2012_val_1.JPEG'"],
    ),
    "empty train": Wrong(
        lambda folder, _: write_tar(folder, TRAIN_TAR, {}), "imagenet", ["no images for train"]
    ),
    "empty val": Wrong(
        lambda folder, _: write_tar(folder, VAL_TAR, {}), "imagenet", ["no images for val"]
    ),
    "inner tar damaged": Wrong(damage(TRAIN_TAR, at=600), TRAIN_TAR, ["from byte 512 "]),
    "train damaged": Wrong(damage(TRAIN_TAR, at=100), TRAIN_TAR, ["is not a tar archive"]),
    "train cut": Wrong(cut(TRAIN_TAR), TRAIN_TAR, ["truncated"]),
    "val cut": Wrong(cut(VAL_TAR), VAL_TAR, ["truncated"]),
    "kit cut": Wrong(cut(KIT), KIT, ["damaged"]),
    "no kit": Wrong(lambda folder, _: (folder / KIT).unlink(), KIT, ["does not exist"]),
    "no val": Wrong(lambda folder, _: (folder / VAL_TAR).unlink(), VAL_TAR, ["does not exist"]),
    "bad image": Wrong(
        lambda folder, _: write_tar(folder, VAL_TAR, {**val_names(1), **bad_val(2)}),
        f"{VAL_TAR}, ILSVRC2012_val_00000002.JPEG: not a JPEG",
        ["1 of 23 images cannot be used", "--skip-bad"],
    ),
}


def bad_val(number: int) -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{number:08d}.JPEG": b"\x1b[2Jnothing"}


@pytest.mark.parametrize("wrong", WRONG)
def test_mistakes_are_reported_in_one_message(
    wrong: str,
    command: list[object],
    pictures: Pictures,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    WRONG[wrong].spoil(tmp_path, pictures)
    assert run(*command) == 2
    said = capsys.readouterr().err
    for part in [WRONG[wrong].archive, *WRONG[wrong].says]:
        assert part in said
    assert said.startswith("prepare.py: ")
    assert "Traceback" not in said
    assert said.count("\n") == (3 if wrong == "bad image" else 1)
    assert not (tmp_path / "out").exists()


def test_each_archive_is_given_once_and_is_a_file(
    command: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command[command.index("--val") + 1] = tmp_path / TRAIN_TAR
    assert run(*command) == 2
    assert "is given twice" in capsys.readouterr().err
    command[command.index("--val") + 1] = tmp_path
    assert run(*command) == 2
    assert "is not a plain file" in capsys.readouterr().err
    (tmp_path / "circle.tar").symlink_to("circle.tar")
    command[command.index("--val") + 1] = tmp_path / "circle.tar"
    assert run(*command) == 2
    assert "does not exist" in capsys.readouterr().err


def test_bad_images_can_be_left_out(command: list[object], tmp_path: Path) -> None:
    write_tar(tmp_path, VAL_TAR, {**val_names(1), **bad_val(2), **val_names(3)})
    assert run(*command, "--skip-bad") == 0
    kit = read_devkit(tmp_path / KIT)
    first, _, third = kit.validation_labels[:3]
    assert labels(tmp_path / "out", "val") == {image(1): first, image(3): third}
