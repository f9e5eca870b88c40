"""Orders of the images compared: how well classes mix in a batch, and how long the reads are."""

import os
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipeline.config.schema import Config, Shuffled, Windowed
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices, training_places
from pipeline.dataset.windows import WindowedOrder
from pipeline.storage.reader import SampleReader
from pipeline.storage.window_reader import WindowReader, byte_ranges
from pipeline.system.command import plural

HEAD = ("order", "classes", "entropy", "run", "runs/epoch", "window", "cold read")
THREADS = 4
"""Threads that read images: the default of data.loader.read_threads."""


def compare(
    index: Index, config: Config, windowed: Sequence[Windowed], *, batches: int, read_steps: int
) -> None:
    """Print the table: a row for each order."""
    asked = [config.data.order] if isinstance(config.data.order, Windowed) else []
    classes = plural(len(index.manifest.classes), "class", "classes")
    print(
        f"{plural(len(index), 'image')} of {classes},"
        f" {index.sizes.mean() / 1e3:.0f} kB each; batches of {config.train.global_batch}"
    )
    _print_row(HEAD)
    for spec in (Shuffled(), *asked, *windowed):
        ordered = OrderedDataset(index, spec, config.seed, config.train.global_batch)
        mixed, entropy = ordered.mixing(batches)
        runs, moved = ordered.reads()
        window = _window_bytes(index, spec)
        speed = f"{_cold_read(ordered, read_steps) / 1e6:,.0f} MB/s" if read_steps else "-"
        name = _name(spec)
        cells = (f"{mixed:.1f}", f"{entropy:.2f} bit", f"{moved / runs / 1e6:.2f} MB")
        _print_row((name, *cells, f"{runs:,}", f"{window / 1e6:,.0f} MB", speed))


def _print_row(cells: Sequence[str]) -> None:
    print(f"{cells[0]:22}", *(f"{cell:>13}" for cell in cells[1:]))


def _name(spec: Shuffled | Windowed) -> str:
    match spec:
        case Shuffled():
            return spec.name
        case Windowed(shard_images=shard, window_shards=window, lanes=lanes):
            return f"windowed {shard}x{window}x{lanes}"


@dataclass(frozen=True, slots=True)
class OrderedDataset:
    """A dataset in one order."""

    index: Index
    spec: Shuffled | Windowed
    seed: int
    global_batch: int

    @property
    def steps(self) -> range:
        """The steps of the first epoch."""
        return range(1, -(-len(self.index) // self.global_batch) + 1)

    @property
    def windowed(self) -> WindowedOrder:
        assert isinstance(self.spec, Windowed)
        return WindowedOrder(self.index.stored, self.spec, self.seed, self.global_batch)

    def places(self, step: int) -> BatchIndices:
        match self.spec:
            case Shuffled():
                return training_places(
                    step,
                    samples=len(self.index),
                    seed=self.seed,
                    global_batch=self.global_batch,
                )
            case Windowed():
                return self.windowed.training_places(step)

    def mixing(self, batches: int) -> tuple[float, float]:
        """Return the classes in a batch and their entropy in bits: means over random batches."""
        steps = np.random.default_rng(0).choice(self.steps, min(batches, len(self.steps)), False)
        counts = [
            np.unique(self.index.labels[self.places(int(step)).samples], return_counts=True)[1]
            for step in steps
        ]
        entropies = [-(share * np.log2(share)).sum() for share in (c / c.sum() for c in counts)]
        return float(np.mean([len(count) for count in counts])), float(np.mean(entropies))

    def reads(self) -> tuple[int, int]:
        """Return the number of contiguous reads in an epoch, and their bytes."""
        if isinstance(self.spec, Shuffled):
            return len(self.index), int(self.index.sizes.sum())
        runs, moved = 0, 0
        for window in self.windowed.windows(self.steps):
            ranges = byte_ranges(self.index, window)
            runs += len(ranges.starts)
            moved += int((ranges.ends - ranges.starts).sum())
        return runs, moved


def _window_bytes(index: Index, spec: Shuffled | Windowed) -> float:
    if isinstance(spec, Shuffled):
        return 0
    images = min(spec.shard_images * spec.window_shards, len(index))
    return images * float(index.sizes.mean()) * spec.lanes


def _cold_read(ordered: OrderedDataset, steps: int) -> float:
    """Read the images of the first steps from the disk; return the bytes per second."""
    _forget(ordered.index)
    moved = 0
    started = time.perf_counter()
    with (
        SampleReader(ordered.index, THREADS) as reader,
        _follow(ordered, range(1, steps + 1)) as course,
    ):
        for step in course:
            contents = reader.read(ordered.places(step).samples)
            moved += sum(len(c) for c in contents if not isinstance(c, OSError))
    return moved / (time.perf_counter() - started)


@contextmanager
def _follow(ordered: OrderedDataset, steps: range) -> Generator[Iterable[int]]:
    """Yield the steps as training with this order reads them."""
    if isinstance(ordered.spec, Shuffled):
        yield steps
        return
    windows = ordered.windowed.windows(steps)
    with WindowReader(
        ordered.index, windows, share=lambda _: (0, 1), read_threads=THREADS
    ) as reader:
        yield reader.follow(steps)


def _forget(index: Index) -> None:
    """Drop the files from the page cache."""
    for name in index.files.to_pylist():
        descriptor = os.open(index.root / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
