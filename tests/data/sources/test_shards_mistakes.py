"""Shards that cannot be written: one clear message, and no partial files."""

import subprocess
import sys
from pathlib import Path

import pytest

from data.indexing import reading
from data.indexing.journal import JOURNAL
from data.sources.shards import destination
from pipeline.dataset.index import read_manifest
from tests.support.images import Picture, make_dataset, make_images, write_pictures
from tests.support.preparing import ROOT
from tests.support.sharding import contents, stored, tars, write

TRAIN, CLASSES = 30, 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("source"), train=TRAIN, val=11, classes=CLASSES)


def test_other_folders_are_not_written_to(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert write(source, tmp_path) == 2
    assert "contains mine" in capsys.readouterr().err
    assert write(source, source) == 2
    assert "the dataset itself" in capsys.readouterr().err
    out = tmp_path / "out"
    assert write(source, out) == 0
    before = contents(out)
    assert write(source, out, "--quality", 50) == 2
    assert "has shards of other images" in capsys.readouterr().err
    assert contents(out) == before


def test_free_space_is_checked_beforehand(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = type("Usage", (), {"free": 20_000})
    monkeypatch.setattr(destination.shutil, "disk_usage", lambda _: usage)
    assert write(source, tmp_path / "out") == 2
    assert "20,000 are free" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.process
def test_a_full_disk_leaves_no_partial_shard(source: Path, tmp_path: Path) -> None:
    """A limit on the file size stands in for a full disk."""
    program = (
        "import resource, signal, sys; from data import prepare;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "sys.exit(prepare.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "shards", source, "--out", tmp_path, "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "shards").iterdir()] == [destination.MARKER]


SPOILT = (3, 4, 20)


def pictures() -> list[Picture]:
    return make_images(TRAIN, classes=CLASSES, size=(40, 32), seed=0)


@pytest.fixture
def spoilt(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A dataset with a missing, a truncated and a changed file, and these files."""
    images = pictures()
    source = write_pictures(tmp_path / "source", {"train": images}, classes=CLASSES)
    gone, cut, changed = (source / f"images/train/{images[n].name}" for n in SPOILT)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:100])
    changed.write_bytes(changed.read_bytes()[:-3] + b"abc")
    return source, [gone, cut, changed]


def test_bad_images_are_listed_together_or_left_out(
    spoilt: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, bad = spoilt
    out = tmp_path / "out"
    assert write(source, out) == 2
    message = capsys.readouterr().err
    assert "3 of 30 images cannot be used" in message
    assert all(str(path) in message for path in bad)
    assert not (out / "manifest.json").exists()
    assert write(source, out, "--skip-bad") == 0
    good = [image for n, image in enumerate(pictures()) if n not in SPOILT]
    assert sorted(stored(out, "train")) == sorted((image.label, image.content) for image in good)


def test_repaired_images_are_added(spoilt: tuple[Path, list[Path]], tmp_path: Path) -> None:
    source, bad = spoilt
    out = tmp_path / "out"
    assert write(source, out, "--skip-bad") == 0
    for number, path in zip(SPOILT, bad, strict=True):
        path.write_bytes(pictures()[number].content)
    assert write(source, out, "--skip-bad") == 0
    assert read_manifest(out).fingerprint == read_manifest(source).fingerprint


def test_unfinished_shards_are_replaced(
    spoilt: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = spoilt
    monkeypatch.setattr(reading, "FEW_BYTES", -1)
    out = tmp_path / "out"
    assert write(source, out) == 2
    assert (out / JOURNAL).exists()
    assert write(source, out, "--quality", 30, "--skip-bad", "--replace") == 0


def test_a_shard_that_is_lost_before_the_end_is_written_again(
    spoilt: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, bad = spoilt
    monkeypatch.setattr(reading, "FEW_BYTES", -1)
    out = tmp_path / "out"
    assert write(source, out) == 2
    before = contents(out)
    tars(out)[1].unlink()
    assert write(source, out, "--skip-bad") == 0
    assert contents(out) == before
    assert len(stored(out, "train")) == TRAIN - len(bad)
