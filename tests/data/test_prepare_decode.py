"""prepare.py --decode finds images that training could not use; without it, a note says so."""

import shutil
from pathlib import Path

import pytest

from pipeline.dataset.index import read_manifest
from tests.support.loading import dali, evaluated, trained
from tests.support.preparing import folder, make_source, picture, save


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    """A tree with a truncated image, and one that has only a valid header."""
    source = make_source(tmp_path / "source")
    for name in ("train/ant/cut.jpg", "val/cat/cut.png"):
        kind = "PNG" if name.endswith("png") else "JPEG"
        path = save(source / name, picture(30, (40, 40)), kind)
        path.write_bytes(path.read_bytes()[:-60])
    return source


def test_truncated_images_are_not_looked_for_and_this_is_said(
    truncated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(truncated, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "images were not checked for truncation; to check: " in said
    assert f"data/verify.py {tmp_path / 'out'} --decode\n" in said


def test_decoding_finds_truncated_images(
    truncated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert folder(truncated, out, "--decode") == 2
    said = capsys.readouterr().err
    assert "2 of 8 images cannot be used:\n" in said
    assert f"  {truncated}/train/ant/cut.jpg at offset 0: cannot be decoded: truncated" in said
    assert not list(out.iterdir())
    assert folder(truncated, out, "--decode", "--skip-bad") == 0
    said = capsys.readouterr().out
    assert "note: 2 bad images left out:\n" in said
    assert "not checked for truncation" not in said
    assert read_manifest(out).samples == {"train": 4, "val": 2}
    trained(dali(out), 1, 3)
    assert len(evaluated(dali(out))[0].labels) == 2
    assert folder(truncated, out, "--decode", "--skip-bad") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_no_class_loses_all_images_by_decoding(
    truncated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(truncated / "train/ant/cut.jpg", truncated / "train/cat/4.jpg")
    assert folder(truncated, tmp_path / "out", "--decode", "--skip-bad") == 2
    assert (
        "1 class has no training image: cat; accept this with --partial" in capsys.readouterr().err
    )
