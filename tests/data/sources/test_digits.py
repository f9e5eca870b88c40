"""The digits: complete, each once, the same each time."""

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.index import Index, read_manifest
from tests.support.preparing import contents, picture, run, save


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "one"
    assert run("digits", "--out", out) == 0
    return out


def test_digits_are_complete_distinct_and_stratified(digits: Path) -> None:
    train, val = (Index.open(digits, split) for split in ("train", "val"))
    digests = {bytes(d) for index in (train, val) for d in index.digests}
    assert len(train) + len(val) == 1797
    assert len(digests) == 1797, "no image is in both splits, or twice"
    both = np.bincount(train.labels) + np.bincount(val.labels)
    np.testing.assert_array_equal(np.bincount(val.labels), both // 5)


def test_digits_are_indexed_as_written(digits: Path) -> None:
    index = Index.open(digits, "val")
    for i in range(0, len(index), 50):
        content = index.path(i).read_bytes()
        assert len(content) == index.sizes[i]
        assert Image.open(BytesIO(content)).size == (index.widths[i], index.heights[i]) == (16, 16)
        assert index.path(i).parent.name == index.manifest.classes[index.labels[i]]


def test_digits_are_the_same_each_time_and_can_move(digits: Path, tmp_path: Path) -> None:
    first = read_manifest(digits)
    shutil.copytree(digits, tmp_path / "two")
    assert run("digits", "--out", tmp_path / "two") == 0
    shutil.move(tmp_path / "two", tmp_path / "three")
    assert read_manifest(tmp_path / "three").fingerprint == first.fingerprint
    assert contents(Index.open(tmp_path / "three", "val")) == contents(Index.open(digits, "val"))


def test_a_foreign_folder_of_images_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = save(tmp_path / "images/holiday.jpg", picture(0))
    assert run("digits", "--out", tmp_path) == 2
    assert "was not made by prepare.py" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [mine.name]
