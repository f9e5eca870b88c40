"""Bad images, mistakes and full disks: one clear message, and the old dataset stays."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset.index import read_manifest
from pipeline.dataset.samples import Sample, StoredFile, collect, digest
from pipeline.dataset.writing import Dataset, write_dataset
from tests.support.preparing import folder, make_source, picture, python, save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def spoilt(source: Path) -> Path:
    (source / "train/ant/empty.jpg").touch()
    (source / "train/ant/text.jpg").write_text("no image at all")
    (source / "train/ant/cut.jpg").write_bytes((source / "train/ant/1.JPEG").read_bytes()[:30])
    (source / "train/cat/nowhere.jpg").symlink_to("missing.jpg")
    os.mkfifo(source / "train/cat/pipe.jpg")
    (source / "val/cat/not-utf8-\udcff.jpg").write_bytes(b"x")
    save(source / "val/cat/animated.jpg", picture(0), "GIF")
    return source


def test_bad_files_are_listed_together(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(spoilt, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "7 of 13 images cannot be used" in message
    assert "--skip-bad" in message
    for name in ("empty.jpg: empty", "text.jpg", "cut.jpg", "nowhere.jpg", "pipe.jpg", "UTF-8"):
        assert name in message
    assert "animated.jpg: not a JPEG" in message
    assert not (tmp_path / "out").exists()


def test_a_long_list_of_bad_files_is_shortened(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(25):
        (source / f"train/ant/bad{number:02d}.jpg").touch()
    assert folder(source, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "bad09.jpg" in message
    assert "bad10.jpg" not in message
    assert "and 15 more" in message


def test_bad_files_can_be_left_out(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(spoilt, tmp_path / "out", "--skip-bad") == 0
    assert "7 bad images left out" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out").samples == {"train": 4, "val": 2}


def test_a_class_that_is_all_bad_is_not_left_out(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "train/cat/4.jpg").write_bytes(b"")
    assert folder(source, tmp_path / "out", "--skip-bad") == 2
    assert "1 class has no training image: cat" in capsys.readouterr().err


Spoil = Callable[[Path], object]
MISTAKES: dict[str, tuple[Spoil, str]] = {
    "no source": (shutil.rmtree, "does not exist"),
    "no val": (lambda source: shutil.rmtree(source / "val"), "has no val/ (it contains train)"),
    "no classes": (
        lambda source: [shutil.rmtree(path) for path in (source / "val").iterdir()],
        "has no class folders",
    ),
    "empty class": (lambda source: (source / "train/owl").mkdir(), "without an image"),
    "unknown class": (
        lambda source: save(source / "val/owl/1.jpg", picture(0)),
        "1 class that train/ lacks: owl",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_have_one_message(
    mistake: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = MISTAKES[mistake]
    spoil(source)
    assert folder(source, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert expected in message
    assert str(source) in message
    assert not (tmp_path / "out").exists()


def test_out_must_be_a_folder_outside_the_classes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert folder(source, tmp_path / "file") == 2
    assert folder(source, tmp_path / "file/below") == 2
    assert folder(source, source / "train/out") == 2
    assert capsys.readouterr().err.count("\n") == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_must_be_writable(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert folder(source, tmp_path / "locked/out") == 2
    assert "no permission to write" in capsys.readouterr().err


@pytest.mark.process
def test_a_full_disk_leaves_the_old_dataset_whole(source: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: the index does not fit, the rest does."""
    out = tmp_path / "out"
    assert folder(source, out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for seed in range(20):
        save(source / f"train/cat/more{seed}.jpg", picture(100 + seed))
    command = (
        "import resource, signal, sys; from data import prepare;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600));"
        f"sys.exit(prepare.main(['imagefolder', {str(source)!r}, '--out', {str(out)!r}]))"
    )
    done = python("-c", command)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_refused_index_leaves_the_old_dataset_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert folder(source, out) == 0
    before = read_manifest(out)
    stray, file = Sample("x.jpg", 0, 1, 3, 1, 1, digest(b"x")), StoredFile("x.jpg", 1, 0)
    with pytest.raises(ValueError, match="label 3 is not in"):
        write_dataset(out, Dataset("x", ("a", "b", "c"), ".", {"train": collect([stray], [file])}))
    assert read_manifest(out) == before
