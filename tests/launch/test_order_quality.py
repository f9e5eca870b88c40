"""The command that compares orders, on a dataset sorted by class."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from launch import order_quality
from tests.multiprocess.runs import write_recipe
from tests.support.images import make_images, write_pictures


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    images = sorted(make_images(240, classes=6, size=(16, 16), seed=0), key=lambda i: i.label)
    stored = [replace(image, name=f"{number:03}.jpg") for number, image in enumerate(images)]
    splits = {"train": stored, "val": stored[:1]}
    return write_recipe(folder, write_pictures(folder / "data", splits, classes=6))


def rows(recipe: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert order_quality.main([str(recipe), *arguments]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()[2:]]


def test_larger_windows_mix_better_up_to_the_global_shuffle(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("data.order={name: windowed, shard_images: 4, window_shards: 60}",)
    tries = ("--windowed=4x1x1", "--windowed=4x8x1", "--windowed=1x240x4", "--read=3")
    found = rows(recipe, capsys, *arguments, *tries)
    assert [" ".join(row[: row.index("bit") - 2]) for row in found] == [
        "shuffled",
        "windowed 4x60x1",
        "windowed 4x1x1",
        "windowed 4x8x1",
        "windowed 1x240x4",
    ]
    shuffled, whole, least, some, lanes = (float(row[row.index("bit") - 1]) for row in found)
    assert whole == pytest.approx(shuffled, abs=0.2)
    assert lanes == pytest.approx(shuffled, abs=0.2)
    assert least < some < shuffled <= math.log2(6)
    assert all(row[-1] == "MB/s" for row in found)


@pytest.mark.parametrize("text", ["4x1", "4x0x1", "axbxc", "4x1x3"])
def test_a_mistake_is_one_line(recipe: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert order_quality.main([str(recipe), f"--windowed={text}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"--windowed {text}: ")
    assert message.count("\n") == 1
