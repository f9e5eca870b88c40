"""The windowed order end to end: what is prefetched, when, by which rank; with the real DALI."""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config.schema import Dali, Data, Windowed
from pipeline.dataset.index import Index
from pipeline.dataset.samples import Sample, StoredFile, collect, digest
from pipeline.dataset.windows import Window, WindowedOrder
from pipeline.dataset.writing import Dataset, write_dataset
from pipeline.distributed.world import World
from pipeline.loaders import Loader, open_loader
from pipeline.storage import window_reader as module
from pipeline.storage.errors import ImageError
from pipeline.storage.window_reader import WindowReader, byte_ranges, share_of_lane
from tests.support.images import make_images
from tests.support.loading import (
    BATCH,
    EVAL,
    SEED,
    TRAIN,
    assert_equal,
    evaluated,
    joined,
    open_split,
    trained,
)

pytestmark = pytest.mark.timeout(60)
ALONE = World()
SMALL = Windowed(shard_images=4, window_shards=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two archives sorted by class, with small gaps between the images and one long gap."""
    folder = tmp_path_factory.mktemp("archives")
    splits = {
        split: [sample for half in (0, 1) for sample in archive(folder, split, half, count)]
        for split, count in {"train": 25, "val": 11}.items()
    }
    write_dataset(folder, dataset(folder, splits))
    return folder


def archive(folder: Path, split: str, half: int, count: int) -> list[Sample]:
    pictures = make_images(count, classes=5, size=(40, 32), seed=[half, count])
    content = bytearray()
    samples: list[Sample] = []
    for number, picture in enumerate(sorted(pictures, key=lambda picture: picture.label)):
        content += bytes(module.GAP_BYTES + 1 if number == 9 else 512)
        name, at, (width, height) = f"{split}{half}.bin", len(content), picture.size
        kind, size, print_of = picture.label, len(picture.content), digest(picture.content)
        samples.append(Sample(name, at, size, kind, width, height, print_of))
        content += picture.content
    (folder / f"{split}{half}.bin").write_bytes(content)
    return samples


def dataset(folder: Path, splits: dict[str, list[Sample]]) -> Dataset:
    def stored(samples: Sequence[Sample]) -> list[StoredFile]:
        paths = [folder / name for name in sorted({sample.file for sample in samples})]
        return [StoredFile(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]

    columns = {split: collect(samples, stored(samples)) for split, samples in splits.items()}
    return Dataset("archives", tuple("abcde"), ".", columns)


def loader(folder: Path, world: World = ALONE, spec: Windowed = SMALL, batch: int = 7) -> Loader:
    data = Data(dir=folder, train=TRAIN, eval=EVAL, order=spec, loader=Dali(threads=1))
    return open_loader(
        data, open_split(folder), seed=SEED, global_batch=BATCH, batch_per_rank=batch, world=world
    )


def order(index: Index, spec: Windowed) -> WindowedOrder:
    return WindowedOrder(index.stored, spec, SEED, BATCH)


def window_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("read")]


# --------------------------------------------------------------------------------------- streams


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_the_slices_of_all_ranks_form_the_global_batch(folder: Path, lanes: int) -> None:
    """With fewer, as many and more ranks than lanes: the order depends on the lanes alone."""
    spec = replace(SMALL, lanes=lanes)
    whole = trained(loader(folder, spec=spec), 1, 9)  # over more than two epochs
    for size in (2, 4):
        ranks = [World(rank=rank, size=size) for rank in range(size)]
        shares = [trained(loader(folder, rank, spec), 1, 9) for rank in ranks]
        assert_equal([joined(list(parts)) for parts in zip(*shares, strict=True)], whole)


def test_a_stream_follows_the_order_wherever_it_starts(folder: Path) -> None:
    index = open_split(folder).train
    places = [order(index, SMALL).training_places(step) for step in range(1, 10)]
    unbroken = trained(loader(folder), 1, 9)
    assert [batch.labels.tolist() for batch in unbroken] == [
        index.labels[of_step.samples].tolist() for of_step in places
    ]
    for first in (2, 5, 9):
        assert_equal(trained(loader(folder), first, 9), unbroken[first - 1 :])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_reads_each_image_once_in_storage_order(folder: Path, size: int) -> None:
    index = open_split(folder).val
    ranks = [World(rank=rank, size=size) for rank in range(size)]
    labels = [
        label
        for rank in ranks
        for batch in evaluated(loader(folder, rank))
        for label in batch.labels.tolist()
    ]
    assert labels == index.labels[index.stored].tolist()
    assert loader(folder, ranks[0]).verify() == []


def test_a_stream_closed_early_leaves_nothing_behind(folder: Path) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    for taken in (0, 1, 7) * 5:
        with loader(folder).train(range(1, 1_000_000)) as stream:
            for _ in range(taken):
                next(stream)
            assert "read-windows" in window_threads()
        assert window_threads() == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 2  # mapped indexes


def test_a_stream_that_waits_for_a_slow_disk_can_be_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, release = threading.Event(), threading.Event()

    def slow(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        stuck.set()
        assert release.wait(30)
        return preadv(descriptor, buffers, offset)

    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", slow)
    with loader(folder).train(range(1, 99)):
        assert stuck.wait(30)
        release.set()
    assert window_threads() == []


def test_files_that_cannot_be_prefetched_are_reported_by_the_sample_reader(tmp_path: Path) -> None:
    samples = archive(tmp_path, "train", 0, 25)
    write_dataset(tmp_path, dataset(tmp_path, {"train": samples, "val": samples}))
    healthy = trained(loader(tmp_path), 1, 2)
    lost = loader(tmp_path)
    (tmp_path / "train0.bin").rename(tmp_path / "moved")
    with pytest.raises(ImageError, match="No such file"):
        trained(lost, 1, 2)
    os.truncate(tmp_path / "moved", 1000)
    (tmp_path / "moved").rename(tmp_path / "train0.bin")
    with pytest.raises(ImageError, match="the file ends after"):
        trained(lost, 1, 2)
    assert window_threads() == []
    assert len(healthy) == 2


# ------------------------------------------------------------------------------------- prefetch


class ReadBytes:
    """Counts how often each byte of each file was prefetched."""

    def __init__(self, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
        self._index = index
        paths = [str(index.root / name) for name in index.files.to_pylist()]
        self.files = [np.zeros(Path(path).stat().st_size, np.int64) for path in paths]
        preadv = os.preadv

        def read(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
            got = preadv(descriptor, buffers, offset)
            file = paths.index(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            self.files[file][offset : offset + got] += 1
            return got

        monkeypatch.setattr(os, "preadv", read)
        monkeypatch.setattr(module, "GAP_BYTES", 512)  # do not read the images of other windows

    def of_samples(self, samples: NDArray[np.int64]) -> list[int]:
        """How often each sample was read completely."""
        starts, sizes = self._index.offsets[samples], self._index.sizes[samples]
        files = self._index.file_ids[samples]
        return [
            int(self.files[file][start : start + size].min())
            for file, start, size in zip(files, starts, sizes, strict=True)
        ]


def reading(index: Index, spec: Windowed, steps: range, world: World = ALONE) -> WindowReader:
    return WindowReader(
        index,
        order(index, spec).windows(steps, part=world.part),
        share=partial(share_of_lane, lanes=spec.lanes, world=world),
        read_threads=2,
    )


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("first", [1, 3])
def test_images_are_prefetched_before_their_step_and_at_most_a_window_ahead(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lanes: int, first: int
) -> None:
    index, spec, steps = open_split(folder).train, replace(SMALL, lanes=lanes), range(first, 5)
    read = ReadBytes(index, monkeypatch)
    windows = list(order(index, spec).windows(steps))
    with reading(index, spec, steps) as reader:
        for step in reader.follow(steps):
            used = order(index, spec).training_places(step).samples
            assert min(read.of_samples(used)) >= 1
            time.sleep(0.03)  # a reader that is too early would read now
            allowed = index.stored[_storage(w for w in windows if w.read_from_step <= step)]
            others = np.setdiff1d(index.stored, allowed)
            assert not any(read.of_samples(others))
    assert window_threads() == []


def _storage(windows: Iterable[Window]) -> NDArray[np.int64]:
    runs = [run for window in windows for run in window.runs.tolist()]
    return np.concatenate([np.arange(begin, end) for begin, end in runs])


def test_ranks_of_a_node_share_the_reads_of_a_lane(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    index, steps = open_split(folder).train, range(1, 5)
    read = ReadBytes(index, monkeypatch)
    for rank in range(2):
        world = World(rank=rank, size=2, local_rank=rank, local_size=2)
        with reading(index, SMALL, steps, world) as reader:
            assert list(reader.follow(steps)) == list(steps)
    used = list(order(index, SMALL).windows(steps))
    times = np.bincount(_storage(used), minlength=len(index))
    assert read.of_samples(index.stored) == times.tolist()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12))
@settings(deadline=None)
def test_the_ranks_of_a_node_read_every_window_once(
    nodes: int, local_size: int, lanes: int
) -> None:
    size = nodes * local_size
    batch = size * lanes
    known = WindowedOrder(np.arange(50), Windowed(lanes=lanes), 0, batch)
    for node in range(nodes):
        turns: dict[int, list[tuple[int, int]]] = {}
        for local in range(local_size):
            world = World(node * local_size + local, size, local, local_size)
            for window in known.windows(range(1, 2), part=world.part):
                turn = share_of_lane(window.lane, lanes=lanes, world=world)
                turns.setdefault(window.lane, []).append(turn)
        for of_lane in turns.values():
            every = [(number, len(set(of_lane))) for number in range(len(set(of_lane)))]
            assert sorted(set(of_lane)) == every


def test_neighbours_are_read_together_and_long_gaps_are_skipped(folder: Path) -> None:
    index = open_split(folder).train
    whole = Window(0, 1, 1, 1, np.array([[0, len(index)]]))
    ranges = byte_ranges(index, whole)
    assert ranges.files.tolist() == [0, 0, 1, 1]  # each archive has a long gap in the middle
    gap = ranges.starts[1] - ranges.ends[0]
    assert gap == module.GAP_BYTES + 1
    assert ranges.starts[0] == ranges.starts[2] == 512
    assert ranges.ends[[1, 3]].tolist() == index.file_sizes.tolist()
    pieces = list(ranges.chunks(1000))
    assert max(end - start for _, start, end in pieces) == 1000
    assert sum(end - start for _, start, end in pieces) == (ranges.ends - ranges.starts).sum()
