"""Images that are corrupt, truncated or missing; with the real DALI."""

import gc
import os
import pickle
from pathlib import Path
from typing import Literal

import pytest

from pipeline.config.schema import Dali
from pipeline.dataset.index import Index
from pipeline.storage.errors import ImageError
from tests.support.images import Picture, make_images, write_pictures
from tests.support.loading import (
    BATCH,
    assert_equal,
    dali,
    evaluated,
    indices,
    joined,
    native_threads,
    open_split,
    trained,
)

Damage = Literal["truncated", "text", "header", "empty", "short", "missing"]
DAMAGES: tuple[Damage, ...] = ("truncated", "text", "header", "empty", "short", "missing")
UNREADABLE = ("empty", "short", "missing")
TRAIN_IMAGES, VAL_IMAGES = 24, 10

pytestmark = pytest.mark.timeout(60)


def damaged(picture: Picture, damage: Damage) -> Picture:
    """The picture as indexed; `short` and `missing` damage its file later."""
    contents = {
        "truncated": picture.content[:-100],
        "text": b"It was here yesterday. " + picture.name.encode(),
        "header": picture.content[:250],
        "empty": b"",
    }
    content = contents.get(damage, picture.content)
    return Picture(picture.name, content, picture.size, picture.label)


def make_damaged(folder: Path, at: dict[int, Damage]) -> Path:
    """A dataset in which the samples numbered `at` are damaged, in both splits.

    Each label is the number of its sample, so labels show which samples a batch contains.
    """
    splits: dict[str, list[Picture]] = {}
    for split, count in {"train": TRAIN_IMAGES, "val": VAL_IMAGES}.items():
        whole = make_images(count, classes=count, size=(40, 32), seed=count)
        splits[split] = [
            damaged(picture, at[number]) if number in at else picture
            for number, picture in enumerate(whole)
        ]
    write_pictures(folder, splits, classes=TRAIN_IMAGES)
    for index in (Index.open(folder, "train"), Index.open(folder, "val")):
        for number, damage in at.items():
            if number >= len(index):
                break
            if damage == "short":
                os.truncate(index.path(number), 99)
            if damage == "missing":
                index.path(number).unlink()
    return folder


# ----------------------------------------------------------------------------- on_corrupt=fail


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_image_is_reported_with_file_and_offset(tmp_path: Path, damage: Damage) -> None:
    folder = make_damaged(tmp_path, {5: damage})
    index = open_split(folder).train
    named = f"{index.path(5)} at offset 0 ({int(index.sizes[5])} bytes): "
    with pytest.raises(ImageError, match=r"data\.on_corrupt=skip") as caught:
        trained(dali(folder), 1, 2)
    assert [fault.startswith(named) for fault in caught.value.faults] == [True]
    assert named in str(caught.value)
    with pytest.raises(ImageError, match=r"00005\.JPEG"):
        evaluated(dali(folder))


@pytest.mark.parametrize("size", [1, 2])
def test_verify_lists_every_fault_of_both_splits(tmp_path: Path, size: int) -> None:
    folder = make_damaged(tmp_path, dict(enumerate(DAMAGES)))
    split = open_split(folder)
    listed = [fault for rank in range(size) for fault in dali(folder, part=(rank, size)).verify()]
    files = {fault.partition(" at offset ")[0] for fault in listed}
    assert files == {str(i.path(n)) for i in (split.train, split.val) for n in range(len(DAMAGES))}
    if size == 1:
        assert len(listed) == len(files)


def test_verify_finds_nothing_in_an_intact_dataset(tmp_path: Path) -> None:
    assert dali(make_damaged(tmp_path, {})).verify() == []


@pytest.mark.parametrize("error", [ImageError(["a", "b"]), ImageError(["a"] * 20, "Mend them.")])
def test_an_error_is_the_same_on_every_rank(error: ImageError) -> None:
    received = pickle.loads(pickle.dumps(error))
    assert type(received) is ImageError
    assert (str(received), received.faults) == (str(error), error.faults)


# ----------------------------------------------------------------------------- on_corrupt=skip


FAULTS: dict[int, Damage] = {
    3: "missing",
    4: "text",
    5: "short",  # three in a row
    11: "truncated",
    15: "empty",
    TRAIN_IMAGES - 1: "header",  # after the last sample comes the first
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_damaged(tmp_path_factory.mktemp("spoilt"), FAULTS)


def replacement(sample: int) -> int:
    while sample in FAULTS:
        sample = (sample + 1) % TRAIN_IMAGES
    return sample


WHOLE = Dali(threads=2, region_decode=False)
"""Decodes whole images, so that truncation is detected for any crop."""


def test_the_next_intact_sample_replaces_a_corrupt_one(spoilt: Path) -> None:
    with dali(spoilt, on_corrupt="skip", spec=WHOLE).train(range(1, 5)) as stream:
        replaced = 0
        for step in range(1, 5):
            asked = indices(spoilt, step).samples.tolist()
            assert next(stream).labels.tolist() == [replacement(sample) for sample in asked]
            replaced += sum(sample in FAULTS for sample in asked)
            assert stream.replaced == replaced
    assert replaced == 2 * len(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_the_replacement_depends_on_the_image_alone(spoilt: Path, prefetch: int) -> None:
    unbroken = trained(dali(spoilt, on_corrupt="skip"), 1, 6)
    spec = Dali(threads=1, read_threads=prefetch, prefetch_batches=prefetch)
    later = trained(dali(spoilt, on_corrupt="skip", spec=spec), 4, 6)
    assert_equal(later, unbroken[3:])
    shares = [trained(dali(spoilt, part=(r, 3), on_corrupt="skip"), 1, 6) for r in range(3)]
    assert_equal([joined(list(ranks)) for ranks in zip(*shares, strict=True)], unbroken)


@pytest.mark.parametrize("batch_per_rank", [1, 4, 64])
@pytest.mark.parametrize("size", [1, 3])
def test_evaluation_counts_corrupt_images_as_errors(
    spoilt: Path, size: int, batch_per_rank: int
) -> None:
    labels: list[int] = [0] * VAL_IMAGES
    replaced = 0
    for rank in range(size):
        loader = dali(spoilt, part=(rank, size), on_corrupt="skip", batch_per_rank=batch_per_rank)
        with loader.evaluate() as stream:
            labels[rank::size] = joined(list(stream)).labels.tolist()
            replaced += stream.replaced
    assert labels == [-1 if number in FAULTS else number for number in range(VAL_IMAGES)]
    assert replaced == sum(number in FAULTS for number in range(VAL_IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_dataset_without_an_intact_image_is_an_error(tmp_path: Path, damage: Damage) -> None:
    folder = make_damaged(tmp_path, dict.fromkeys(range(TRAIN_IMAGES), damage))
    loader = dali(folder, on_corrupt="skip", spec=WHOLE)
    with pytest.raises(ImageError, match="Too many in a row"):
        trained(loader, 1, 1)
    with pytest.raises(ImageError, match="Too many in a row"):
        evaluated(loader)
    assert len(loader.verify()) == TRAIN_IMAGES + VAL_IMAGES + 2


@pytest.mark.parametrize("region_decode", [True, False])
def test_an_image_of_another_size_than_indexed_is_replaced(
    tmp_path: Path, region_decode: bool
) -> None:
    made = make_images(3, classes=3, size=(40, 32), seed=1)
    wrong = Picture("wrong.JPEG", made[1].content, (4000, 3200), 1)
    folder = write_pictures(tmp_path, {"train": [made[0], wrong, made[2]], "val": made}, classes=3)
    spec = Dali(threads=1, region_decode=region_decode)
    labels = joined(trained(dali(folder, on_corrupt="skip", spec=spec), 1, 1)).labels.tolist()
    assert sorted(labels) == [0] * 4 + [2] * 8
    with pytest.raises(ImageError, match=r"wrong\.JPEG"):
        trained(dali(folder, spec=spec), 1, 1)


def test_one_intact_image_is_enough(tmp_path: Path) -> None:
    at: dict[int, Damage] = dict.fromkeys(range(TRAIN_IMAGES), "missing")
    del at[7]
    labels = trained(dali(make_damaged(tmp_path, at), on_corrupt="skip"), 1, 1)[0].labels
    assert labels.tolist() == [7] * BATCH


@pytest.mark.slow
def test_recoveries_leave_no_threads_behind(tmp_path: Path) -> None:
    at: dict[int, Damage] = dict.fromkeys(range(1, TRAIN_IMAGES), "text")
    loader = dali(make_damaged(tmp_path, at), on_corrupt="skip")
    gc.collect()
    before = native_threads()
    gc.disable()  # uncollected decoders would keep their threads
    try:
        assert trained(loader, 1, 1)[0].labels.tolist() == [0] * BATCH
        with pytest.raises(ImageError):
            trained(dali(tmp_path), 1, 2)
        assert native_threads() <= before + 2
    finally:
        gc.enable()
