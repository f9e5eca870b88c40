"""Names that an index cannot hold, or that contain commands for a terminal."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset.index import Index
from tests.support.packings import Command, Pictures, class_folders, make_pictures, shards_with_both
from tests.support.preparing import contents, folder, run

NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures(8, 4)


@pytest.fixture
def source(tmp_path: Path, pictures: Pictures) -> Path:
    class_folders(tmp_path / "source", pictures)
    return tmp_path / "source"


def in_folder(pack: Callable[[Path, Pictures], Command], name: str) -> Callable[..., Command]:
    return lambda place, pictures: pack(place / name, pictures)


def class_of_that_name(place: Path, pictures: Pictures) -> Command:
    command = class_folders(place, pictures)
    for split in ("train", "val"):
        (place / split / "n02119789").rename(place / split / NOT_UTF8)
    return command


def shard_of_that_name(place: Path, pictures: Pictures) -> Command:
    shards_with_both(place, pictures)
    (place / "train.tar").rename(place / f"{NOT_UTF8}.tar")
    return ["webdataset", place / f"{NOT_UTF8}.tar", "--val", place / "val.tar"]


UNNAMEABLE = {
    "class": class_of_that_name,
    "shard": shard_of_that_name,
    "folder of classes": in_folder(class_folders, NOT_UTF8),
    "folder of shards": in_folder(shards_with_both, NOT_UTF8),
}


@pytest.mark.parametrize("what", UNNAMEABLE)
def test_a_name_that_is_not_utf8_is_refused_with_its_path(
    what: str, pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = UNNAMEABLE[what](tmp_path / "source", pictures)
    assert run(*command, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "caf\\udce9" in said
    assert said.endswith("this name is not UTF-8; rename it\n")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_odd_names_are_indexed(source: Path, pictures: Pictures, tmp_path: Path) -> None:
    odd = ["new\nline", "quote'\"", " ", "\x1b[2J", "日本", "$(id)", "-rf"]
    for number, path in enumerate(sorted(source.glob("*/*/*.JPEG"))):
        path.rename(path.with_name(f"{odd[number % len(odd)]}{number}.JPEG"))
    for split in ("train", "val"):
        (source / split / "n02119789").rename(source / split / "n\n")
    assert folder(source, tmp_path / "out\n") == 0
    for split, some in pictures.splits().items():
        found = {content for _, content in contents(Index.open(tmp_path / "out\n", split))}
        assert found == {each.content for each in some}


def test_names_in_messages_do_not_break_lines_or_control_the_terminal(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "train/n02119789/a\nb\x1b[2J.jpg").touch()
    (source / "train/n02119789/x\ny.txt").touch()
    assert folder(source, tmp_path / "out") == 2
    assert "'train/n02119789/a\\nb\\x1b[2J.jpg': empty" in capsys.readouterr().err
    assert folder(source, tmp_path / "out", "--skip-bad") == 0
    said = capsys.readouterr().out
    assert "1 file ignored, not named like images: 'train/n02119789/x\\ny.txt'" in said
    assert "\x1b" not in said
    (source / "val/new\nclass").mkdir()
    assert folder(source, tmp_path / "out") == 2
    assert "1 class that train/ lacks: 'new\\nclass'" in capsys.readouterr().err


def test_out_must_have_a_name_in_utf8(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(source, tmp_path / NOT_UTF8) == 2
    said = f"prepare.py: '{tmp_path}/caf\\udce9': this name is not UTF-8; rename it\n"
    assert capsys.readouterr().err == said
