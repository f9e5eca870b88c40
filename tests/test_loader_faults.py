"""Images that are corrupt, missing or elsewhere, and streams that end early; with the real DALI."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from pipeline.config.schema import Dali
from pipeline.dataset.index import Index, Sample, digest, write_dataset
from pipeline.loaders import Batch
from pipeline.loaders.faults import ImageError
from pipeline.loaders.reader import ReadAhead, missing_files
from tests.images import Picture, make_dataset, make_images, write_pictures
from tests.loading import (
    BATCH,
    assert_equal,
    dali,
    evaluated,
    joined,
    open_split,
    places,
    trained,
)

Damage = Literal["truncated", "text", "header", "empty", "short", "missing"]
DAMAGES: tuple[Damage, ...] = ("truncated", "text", "header", "empty", "short", "missing")
UNREADABLE = ("empty", "short", "missing")
TRAIN_IMAGES, VAL_IMAGES = 24, 10

pytestmark = pytest.mark.timeout(60)


def damaged(picture: Picture, damage: Damage) -> Picture:
    """The picture as it would be indexed; `short` and `missing` befall its file afterwards."""
    contents = {
        "truncated": picture.content[:-100],
        "text": b"It was here yesterday. " + picture.name.encode(),
        "header": picture.content[:250],
        "empty": b"",
    }
    content = contents.get(damage, picture.content)
    return Picture(picture.name, content, picture.size, picture.label)


def make_damaged(folder: Path, at: dict[int, Damage]) -> Path:
    """A dataset in which the samples numbered `at`, in both splits, are damaged.

    Labels are the numbers themselves, so that they say which sample a batch holds.
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


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_image_is_named_with_file_and_offset(tmp_path: Path, damage: Damage) -> None:
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


def test_verify_finds_nothing_in_a_sound_dataset(tmp_path: Path) -> None:
    assert dali(make_damaged(tmp_path, {})).verify() == []


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


def stand_in(sample: int) -> int:
    while sample in FAULTS:
        sample = (sample + 1) % TRAIN_IMAGES
    return sample


WHOLE = Dali(threads=2, region_decode=False)
"""Whole images are decoded, so the truncated one is noticed whatever its window."""


def test_the_next_sound_sample_stands_in(spoilt: Path) -> None:
    with dali(spoilt, on_corrupt="skip", spec=WHOLE).train(range(1, 5)) as stream:
        replaced = 0
        for step in range(1, 5):
            asked = places(spoilt, step).samples.tolist()
            assert next(stream).labels.tolist() == [stand_in(sample) for sample in asked]
            replaced += sum(sample in FAULTS for sample in asked)
            assert stream.replaced == replaced
    assert replaced == 2 * len(FAULTS)


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_what_stands_in_depends_on_nothing_but_the_image(spoilt: Path, prefetch: int) -> None:
    unbroken = trained(dali(spoilt, on_corrupt="skip"), 1, 6)
    spec = Dali(threads=1, read_threads=prefetch, prefetch_batches=prefetch)
    later = trained(dali(spoilt, on_corrupt="skip", spec=spec), 4, 6)
    assert_equal(later, unbroken[3:])
    shares = [trained(dali(spoilt, part=(r, 3), on_corrupt="skip"), 1, 6) for r in range(3)]
    assert_equal([joined(list(ranks)) for ranks in zip(*shares, strict=True)], unbroken)


@pytest.mark.parametrize("rank_batch", [1, 4, 64])
@pytest.mark.parametrize("size", [1, 3])
def test_evaluation_counts_corrupt_images_as_errors(
    spoilt: Path, size: int, rank_batch: int
) -> None:
    labels: list[int] = [0] * VAL_IMAGES
    replaced = 0
    for rank in range(size):
        loader = dali(spoilt, part=(rank, size), on_corrupt="skip", rank_batch=rank_batch)
        with loader.evaluate() as stream:
            labels[rank::size] = joined(list(stream)).labels.tolist()
            replaced += stream.replaced
    assert labels == [-1 if number in FAULTS else number for number in range(VAL_IMAGES)]
    assert replaced == sum(number in FAULTS for number in range(VAL_IMAGES))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_dataset_without_a_sound_image_is_an_error(tmp_path: Path, damage: Damage) -> None:
    folder = make_damaged(tmp_path, dict.fromkeys(range(TRAIN_IMAGES), damage))
    loader = dali(folder, on_corrupt="skip", spec=WHOLE)
    with pytest.raises(ImageError, match="Too many in a row"):
        trained(loader, 1, 1)
    with pytest.raises(ImageError, match="Too many in a row"):
        evaluated(loader)
    assert len(loader.verify()) == TRAIN_IMAGES + VAL_IMAGES + 2


def test_one_sound_image_is_enough(tmp_path: Path) -> None:
    at: dict[int, Damage] = dict.fromkeys(range(TRAIN_IMAGES), "missing")
    del at[7]
    labels = trained(dali(make_damaged(tmp_path, at), on_corrupt="skip"), 1, 1)[0].labels
    assert labels.tolist() == [7] * BATCH


# ------------------------------------------------------------------------- files and archives


def test_images_inside_an_archive_load_as_files_do(tmp_path: Path) -> None:
    pictures = make_images(20, classes=20, size=(40, 32), seed=1)
    files = write_pictures(tmp_path / "files", {"train": pictures, "val": pictures[:9]}, classes=20)
    samples: list[Sample] = []
    archive = bytearray(b"header")
    for picture in reversed(pictures):
        content, (width, height) = picture.content, picture.size
        offset, size = len(archive), len(content)
        samples.append(
            Sample("all.bin", offset, size, picture.label, width, height, digest(content))
        )
        archive += content + b"padding"
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "all.bin").write_bytes(archive)
    splits = {"train": samples, "val": samples[-9:]}
    names = [str(number) for number in range(20)]
    write_dataset(folder, name="archive", classes=names, root=".", splits=splits)
    assert_equal(trained(dali(folder), 1, 4), trained(dali(files), 1, 4))
    assert_equal(evaluated(dali(folder)), evaluated(dali(files)))


def test_missing_and_cut_files_are_listed_without_reading_them(tmp_path: Path) -> None:
    index = open_split(make_damaged(tmp_path, {1: "missing", 4: "short", 6: "text"})).train
    missing, short = sorted(missing_files(index), key=lambda line: "bytes" in line)
    assert missing == f"{index.path(1)}: No such file or directory"
    assert short.startswith(f"{index.path(4)}: has 99 bytes, but the index needs ")


def test_a_dataset_of_many_files_is_read_with_few_open(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, train=300, val=1)
    with dali(folder).train(range(1, 26)) as stream:
        before = descriptors()
        assert sum(len(batch.labels) for batch in stream) == 300
        assert descriptors() < before + 20


def test_a_file_system_that_returns_less_at_a_time_is_no_fault(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(dali(spoilt, on_corrupt="skip"))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 100), at))
    assert_equal(evaluated(dali(spoilt, on_corrupt="skip")), whole)


def test_a_slow_disk_changes_nothing(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = trained(dali(spoilt, on_corrupt="skip"), 1, 3)
    pread = os.pread

    def late(descriptor: int, size: int, at: int) -> bytes:
        time.sleep(0.01 * (size % 3))
        return pread(descriptor, size, at)

    monkeypatch.setattr(os, "pread", late)
    assert_equal(trained(dali(spoilt, on_corrupt="skip"), 1, 3), quick)


# ------------------------------------------------------------------------------- early endings


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read")]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_stream_left_early_leaves_nothing_behind(spoilt: Path) -> None:
    loader = dali(spoilt, on_corrupt="skip")
    trained(loader, 1, 2)  # what is loaded once stays
    before = descriptors(), native_threads()
    started = time.monotonic()
    for _ in range(30):
        with loader.train(range(1, 1_000_000)) as stream:
            next(stream)
            assert readers()
        assert readers() == []
    assert descriptors() == before[0]
    assert native_threads() <= before[1] + 2  # one may take a moment to die
    assert time.monotonic() - started < 20


def test_recoveries_leave_no_threads_behind(tmp_path: Path) -> None:
    at: dict[int, Damage] = dict.fromkeys(range(1, TRAIN_IMAGES), "text")
    loader = dali(make_damaged(tmp_path, at), on_corrupt="skip")
    gc.collect()
    before = native_threads()
    gc.disable()  # what waits for the garbage collector holds threads until it comes
    try:
        assert trained(loader, 1, 1)[0].labels.tolist() == [0] * BATCH
        with pytest.raises(ImageError):
            trained(dali(tmp_path), 1, 2)
        assert native_threads() <= before + 2
    finally:
        gc.enable()


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_stream_left_by_an_exception_is_closed(spoilt: Path, taken: int) -> None:
    def leave(stream: Iterator[Batch]) -> None:
        for _ in range(taken):
            next(stream)
        raise StoppedError

    before = descriptors()
    loader = dali(spoilt, on_corrupt="skip")
    with pytest.raises(StoppedError), loader.train(range(1, 1000)) as stream:
        leave(stream)
    assert readers() == []
    assert descriptors() == before


def test_a_decoder_that_cannot_start_leaves_no_thread(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = dali(spoilt)
    import nvidia.dali

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(nvidia.dali, "Pipeline", refuse)
    with pytest.raises(RuntimeError, match="no room"):
        loader.train(range(1, 9))
    assert readers() == []


def test_errors_of_the_order_come_to_the_surface(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(step: int, **_: object) -> None:
        raise RuntimeError(f"no step {step}")

    monkeypatch.setattr("pipeline.loaders.dali.training_places", broken)
    with pytest.raises(RuntimeError, match="no step 3"):
        trained(dali(spoilt), 3, 9)
    assert readers() == []


def test_read_ahead_keeps_order_and_raises_in_place() -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)
        raise KeyError("four")

    with ReadAhead(numbers(), depth=1) as ahead:
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(KeyError, match="four"):
                next(ahead)
    with ReadAhead(iter(range(10)), depth=3) as ahead:
        assert list(ahead) == list(range(10))
        assert list(ahead) == []
    assert readers() == []
