"""show.py: its figures add up, and its pictures are those of training, pixel for pixel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from data import show
from pipeline.config.load import load
from pipeline.config.schema import Config, Shuffled
from pipeline.dataset.index import Index, read_manifest
from pipeline.dataset.order import training_places
from pipeline.dataset.samples import Sample, StoredFile, collect, digest
from pipeline.dataset.split import Split
from pipeline.dataset.windows import WindowedOrder
from pipeline.dataset.writing import Dataset, write_dataset
from pipeline.distributed.world import World
from pipeline.loaders import Loader, open_loader
from tests.support.images import make_dataset, make_images, write_pictures

TRAIN_IMAGES, VAL_IMAGES = 9, 4
BATCH = 6
RECIPE = """\
name: test
data:
  dir: elsewhere
  train: {size: 100}
  eval: {resize: 120, size: 100}
  loader: {threads: 2}
model: {name: resnet50}
train: {epochs: 3, global_batch: 6}
optim: {lr: 0.1}
schedule: {name: cosine}
seed: 11
"""
SIDE = 100

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dataset")
    make_dataset(place, train=TRAIN_IMAGES, val=VAL_IMAGES, size=(150, 120))
    (place / "recipe.yaml").write_text(RECIPE)
    return place


def shown(folder: Path, out: Path, *options: object) -> NDArray[np.uint8]:
    """Run the program; return the pixels of the sheet, (height, width, 3)."""
    assert show.main([str(folder), "--out", str(out), *map(str, options)]) == 0
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.mode == "RGB"
        return np.asarray(sheet)


def places_of(sheet: NDArray[np.uint8], picture: NDArray[np.uint8]) -> set[tuple[int, int]]:
    """Find all places (y, x) where the sheet shows a picture, pixel for pixel."""
    high, wide = picture.shape[:2]
    corner = sheet[: len(sheet) - high + 1, : sheet.shape[1] - wide + 1]
    starts = np.argwhere((corner == picture[0, 0]).all(2))
    return {
        (y, x)
        for y, x in starts.tolist()
        if np.array_equal(sheet[y, x : x + wide], picture[0])
        and np.array_equal(sheet[y : y + high, x : x + wide], picture)
    }


def one_place(sheet: NDArray[np.uint8], picture: NDArray[np.uint8]) -> tuple[int, int]:
    (place,) = places_of(sheet, picture)
    return place


def training_loader(folder: Path, config: Config) -> Loader:
    split = Split(Index.open(folder, "train"), Index.open(folder, "val"))
    return open_loader(
        config.data, split, seed=config.seed, global_batch=BATCH, batch_per_rank=5, world=World()
    )


def views_in_training(folder: Path, config: Config) -> dict[tuple[int, int], NDArray[np.uint8]]:
    """The views of the first three epochs of training, by sample and epoch."""
    index = Index.open(folder, "train")
    views: dict[tuple[int, int], NDArray[np.uint8]] = {}
    steps = range(1, 3 * TRAIN_IMAGES // BATCH + 2)
    with training_loader(folder, config).train(steps) as stream:
        for step, batch in zip(steps, stream, strict=True):
            if isinstance(config.data.order, Shuffled):
                at = training_places(step, samples=len(index), seed=config.seed, global_batch=BATCH)
            else:
                order = WindowedOrder(index.stored, config.data.order, config.seed, BATCH)
                at = order.training_places(step)
            keys = zip(at.samples.tolist(), at.epochs.tolist(), strict=True)
            views |= dict(zip(keys, batch.images.numpy(), strict=True))
    return views


def first_seen(views: dict[tuple[int, int], NDArray[np.uint8]]) -> list[int]:
    return [sample for sample, epoch in views if epoch == 0]


ORDERS = {
    "shuffled": (),
    "windowed": (
        "data.order.name=windowed",
        "data.order.shard_images=2",
        "data.order.window_shards=2",
        "data.order.lanes=2",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_sheet_shows_what_training_sees_to_the_pixel(
    folder: Path, tmp_path: Path, order: str
) -> None:
    overrides = [f"data.dir={folder}", *ORDERS[order]]
    config = load(folder / "recipe.yaml", overrides)
    recipe = ("--config", folder / "recipe.yaml", *ORDERS[order])
    sheet = shown(folder, tmp_path / "sheet.png", *recipe, "--samples", 4)
    views = views_in_training(folder, config)
    samples = first_seen(views)
    rows = [[one_place(sheet, views[s, epoch]) for epoch in range(3)] for s in samples[:4]]
    for row in rows:
        assert len({y for y, _ in row}) == 1
        lefts = [x for _, x in row]
        assert lefts[1] - lefts[0] == lefts[2] - lefts[1] > SIDE
    assert rows == sorted(rows)
    for sample in samples[4:]:
        assert not places_of(sheet, views[sample, 0])


@pytest.mark.slow
def test_the_sheet_shows_what_evaluation_sees_to_the_pixel(folder: Path, tmp_path: Path) -> None:
    config = load(folder / "recipe.yaml", [f"data.dir={folder}"])
    recipe = ("--config", folder / "recipe.yaml")
    sheet = shown(folder, tmp_path / "sheet.png", *recipe, "--samples", 50)
    training = Index.open(folder, "train")
    both = Split(training, training), Split(training, Index.open(folder, "val"))
    for split in both:
        loader = open_loader(
            config.data, split, seed=0, global_batch=BATCH, batch_per_rank=5, world=World()
        )
        with loader.evaluate() as stream:
            images = torch.cat([batch.images for batch in stream]).numpy()
        found = {one_place(sheet, picture) for picture in images}
        assert len(found) == len(split.val)


def test_another_seed_shows_other_views(folder: Path, tmp_path: Path) -> None:
    recipe = ("--config", folder / "recipe.yaml", "--samples", "2")
    first = shown(folder, tmp_path / "a.png", *recipe)
    assert np.array_equal(first, shown(folder, tmp_path / "b.png", *recipe, "--seed", 11))
    other = shown(folder, tmp_path / "c.png", *recipe, "--seed", 12)
    assert not np.array_equal(first, other)
    assert np.array_equal(other, shown(folder, tmp_path / "d.png", *recipe, "seed=12"))


def test_small_images_are_enlarged_by_a_whole_factor(folder: Path, tmp_path: Path) -> None:
    small = ("data.train.size=16", "data.eval.resize=20", "data.eval.size=16", "seed=11")
    sheet = shown(folder, tmp_path / "sheet.png", *small, "--samples", 2)
    config = load(folder / "recipe.yaml", [f"data.dir={folder}", *small])
    views = views_in_training(folder, config)
    picture = views[first_seen(views)[0], 2]
    assert places_of(sheet, picture.repeat(6, 0).repeat(6, 1))


def test_without_a_recipe_crops_are_the_defaults_of_the_schema(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = shown(folder, tmp_path / "sheet.png", "--samples", 1)
    assert sheet.shape[1] > 5 * 224
    assert "contact sheet in" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- figures


def test_the_figures_are_those_of_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        *make_images(3, classes=3, size=(40, 30), seed=1),
        *make_images(2, classes=2, size=(100, 20), seed=2),
    ]
    named = [replace(picture, name=f"{at}.JPEG") for at, picture in enumerate(made)]
    write_pictures(tmp_path, {"train": named, "val": named[:2]}, classes=3)
    shown(tmp_path, tmp_path / "sheet.png", "--samples", 1)
    told = capsys.readouterr().out
    lines = {line[:14].strip(): line[14:].split() for line in told.splitlines()}
    sizes = [len(picture.content) for picture in named]
    assert lines["images"] == ["5", "2"]
    assert lines["files"] == ["5", "2"]
    assert lines["bytes"] != []
    assert f"{sum(sizes):,}" in told
    assert "3 classes: class0 .. class2" in told
    assert "fewest images of a class: 1, class2" in told
    assert "most images of a class: 2, class0 and 1 more" in told
    train = told[told.index("train, in") : told.index("val, in")]
    rows = {line[:14].strip(): line[14:].split() for line in train.splitlines()}
    assert rows["width"] == ["40", "40", "40", "100", "100"]
    assert rows["height"] == ["20", "20", "30", "30", "30"]
    assert rows["shorter side"] == ["20", "20", "30", "30", "30"]
    ordered = [f"{size:,}" for size in sorted(sizes)]
    assert rows["bytes"] == [ordered[0], ordered[0], ordered[2], ordered[4], ordered[4]]
    assert read_manifest(tmp_path).fingerprint in told


def test_classes_are_named_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = make_images(1, classes=1, size=(40, 30), seed=1)[0].content
    (tmp_path / "x.JPEG").write_bytes(content)
    rows = [Sample("x.JPEG", 0, len(content), 1, 40, 30, digest(content))]
    samples = collect(rows, [StoredFile("x.JPEG", len(content), 0)])
    words = ("n01 ", "n02")
    names = ("tench, Tinca tinca", "goldfish")
    write_dataset(tmp_path, Dataset("two", words, ".", {"train": samples, "val": samples}, names))
    shown(tmp_path, tmp_path / "sheet.png")
    told = capsys.readouterr().out
    assert "2 classes: n01  (tench, Tinca tinca) .. n02 (goldfish)" in told
    assert "fewest images of a class: 0, n01" in told


# ------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--out", "none/sheet.png"], "--out none/sheet.png cannot be written"),
        (["data.train.size=0"], "command line: data.train.size=0: "),
        (["data.train.sise=1"], "did you mean size?"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], part: str
) -> None:
    assert show.main([str(folder), *options]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("show.py: ")
    assert part in told.err
    assert told.out == ""


def test_a_folder_without_a_dataset_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show.main([str(tmp_path)]) == 2
    assert f"no dataset at {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"text"])
def test_an_image_that_cannot_be_shown_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    made = make_images(3, classes=3, size=(40, 30), seed=1)
    made[1] = replace(made[1], content=content)
    write_pictures(tmp_path, {"train": made, "val": made[:1]}, classes=3)
    sheet = tmp_path / "sheet.png"
    assert show.main([str(tmp_path), "--out", str(sheet)]) == 2
    told = capsys.readouterr().err
    assert "00001.JPEG at offset 0" in told
    assert "data/verify.py DIR --decode" in told
    assert not sheet.exists()
