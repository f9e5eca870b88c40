"""Files, archives and slow disks, and streams that end early; with the real DALI."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.loaders import Batch
from pipeline.storage.errors import ImageError
from pipeline.storage.reader import ReadAhead
from tests.support.archives import spoil, write_archives
from tests.support.images import make_dataset, make_images, write_pictures
from tests.support.loading import (
    assert_equal,
    dali,
    evaluated,
    indices,
    native_threads,
    open_split,
    trained,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"), train=31, val=23)


# ------------------------------------------------------------------------- files and archives


def test_images_in_an_archive_load_like_files(tmp_path: Path) -> None:
    pictures = make_images(20, classes=20, size=(40, 32), seed=1)
    files = write_pictures(tmp_path / "files", {"train": pictures, "val": pictures[:9]}, classes=20)
    splits = {"train": {"all.bin": pictures[::-1]}, "val": {"all.bin": pictures[8::-1]}}
    folder = write_archives(tmp_path / "archive", splits, classes=20)
    assert_equal(trained(dali(folder), 1, 4), trained(dali(files), 1, 4))
    assert_equal(evaluated(dali(folder)), evaluated(dali(files)))


def test_an_image_that_is_not_the_indexed_one_is_corrupt(tmp_path: Path) -> None:
    """One changed bit is enough, even if it can still be decoded."""
    pictures = make_images(9, classes=9, size=(40, 32), seed=1)
    splits = {"train": {"all.bin": pictures}, "val": {"all.bin": pictures[:1]}}
    folder = write_archives(tmp_path, splits, classes=9)
    index = open_split(folder).train
    path = index.path(0)
    spoil(path, int(index.offsets[4]) + int(index.sizes[4]) // 2)
    named = f"{path} at offset {index.offsets[4]} ({index.sizes[4]} bytes): its bytes do not match"
    with pytest.raises(ImageError) as caught:
        trained(dali(folder), 1, 2)
    assert [fault.startswith(named) for fault in caught.value.faults] == [True]
    batches = trained(dali(folder, on_corrupt="skip"), 1, 3)
    asked = [indices(folder, step).samples.tolist() for step in range(1, 4)]
    assert any(4 in samples for samples in asked)
    for batch, samples in zip(batches, asked, strict=True):
        assert batch.labels.tolist() == [5 if sample == 4 else sample for sample in samples]


def test_a_dataset_of_many_files_is_read_with_few_open(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, train=300, val=1)
    with dali(folder).train(range(1, 26)) as stream:
        before = descriptors()
        assert sum(len(batch.labels) for batch in stream) == 300
        assert descriptors() < before + 20


def test_short_reads_are_not_a_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(dali(folder))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 100), at))
    assert_equal(evaluated(dali(folder)), whole)


def test_a_slow_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = trained(dali(folder), 1, 3)
    pread = os.pread

    def late(descriptor: int, size: int, at: int) -> bytes:
        time.sleep(0.01 * (size % 3))
        return pread(descriptor, size, at)

    monkeypatch.setattr(os, "pread", late)
    assert_equal(trained(dali(folder), 1, 3), quick)


# ------------------------------------------------------------------------------- early endings


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read")]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_stream_closed_early_leaves_nothing_behind(folder: Path) -> None:
    loader = dali(folder)
    trained(loader, 1, 2)  # libraries stay loaded
    before = descriptors(), native_threads()
    started = time.monotonic()
    for _ in range(30):
        with loader.train(range(1, 1_000_000)) as stream:
            next(stream)
            assert readers()
        assert readers() == []
    assert descriptors() == before[0]
    assert native_threads() <= before[1] + 2  # one may take a moment to end
    assert time.monotonic() - started < 20


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_an_exception_closes_the_stream(folder: Path, taken: int) -> None:
    def leave(stream: Iterator[Batch]) -> None:
        for _ in range(taken):
            next(stream)
        raise StoppedError

    before = descriptors()
    loader = dali(folder)
    with pytest.raises(StoppedError), loader.train(range(1, 1000)) as stream:
        leave(stream)
    assert readers() == []
    assert descriptors() == before


def test_a_decoder_that_cannot_start_leaves_no_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = dali(folder)
    import nvidia.dali

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(nvidia.dali, "Pipeline", refuse)
    with pytest.raises(RuntimeError, match="no room"):
        loader.train(range(1, 9))
    assert readers() == []


def test_errors_of_the_order_are_raised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(step: int, **_: object) -> None:
        raise RuntimeError(f"no step {step}")

    monkeypatch.setattr("pipeline.loaders.dali.training_places", broken)
    with pytest.raises(RuntimeError, match="no step 3"):
        trained(dali(folder), 3, 9)
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
