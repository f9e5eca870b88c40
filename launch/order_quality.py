"""Compare orders of the images: how well classes mix in a batch, and how long the reads are.

    python launch/order_quality.py CONFIG [a.b=c ...] [--windowed 64x256x1 ...] [--read STEPS]

The rows are the global shuffle, the order of the configuration, and each given as shard_images x
window_shards x lanes. With --read, the images of so many steps are read, and not decoded, each time
after the system was told to forget the files.
"""

import argparse
import os
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

if __name__ == "__main__":
    from pipeline.system.extras import exit_unless_installed

    exit_unless_installed("pyarrow", "xxhash", needed_by="order_quality.py")

from pipeline.config.load import load
from pipeline.config.schema import Config, Shuffled, Windowed
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices, training_places
from pipeline.dataset.windows import WindowedOrder
from pipeline.storage.reader import SampleReader
from pipeline.storage.window_reader import WindowReader, byte_ranges

HEAD = ("order", "classes", "entropy", "run", "runs an epoch", "window", "cold read")
THREADS = 4
"""Threads that read images, as data.loader.read_threads has by default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python launch/order_quality.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c")
    parser.add_argument("--windowed", action="append", default=[], metavar="SHARDxWINDOWxLANES")
    parser.add_argument("--batches", type=int, default=100, help="batches looked at (default 100)")
    parser.add_argument("--read", type=int, default=0, metavar="STEPS", help="steps to read")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load(options.config, options.overrides)
        windowed = [_parse(text, config.train.global_batch) for text in options.windowed]
        index = Index.open(config.data.dir, "train", config.data.root)
        compare(index, config, windowed, batches=options.batches, read_steps=options.read)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parse(text: str, global_batch: int) -> Windowed:
    try:
        shard, window, lanes = map(int, text.split("x"))
        spec = Windowed(shard_images=shard, window_shards=window, lanes=lanes)
    except ValueError as error:
        raise ValueError(f"--windowed {text}: must be like 64x256x1, of numbers above 0") from error
    if global_batch % lanes:
        raise ValueError(
            f"--windowed {text}: {lanes} lanes do not divide a batch of {global_batch}"
        )
    return spec


def compare(
    index: Index, config: Config, windowed: Sequence[Windowed], *, batches: int, read_steps: int
) -> None:
    """Print the table: a row for each order."""
    asked = [config.data.order] if isinstance(config.data.order, Windowed) else []
    print(
        f"{len(index):,} images of {len(index.manifest.classes)} classes,"
        f" {index.sizes.mean() / 1e3:.0f} kB each; batches of {config.train.global_batch}"
    )
    _print_row(HEAD)
    for spec in (Shuffled(), *asked, *windowed):
        seen = _Seen(index, spec, config.seed, config.train.global_batch)
        classes, entropy = seen.mixing(batches)
        runs, moved = seen.reads()
        window = _window_bytes(index, spec)
        speed = f"{_cold_read(seen, read_steps) / 1e6:,.0f} MB/s" if read_steps else "-"
        name = _name(spec)
        cells = (f"{classes:.1f}", f"{entropy:.2f} bit", f"{moved / runs / 1e6:.2f} MB")
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
class _Seen:
    """A dataset as one order goes through it."""

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
        """Return the classes of a batch and their entropy in bits: means over random batches."""
        steps = np.random.default_rng(0).choice(self.steps, min(batches, len(self.steps)), False)
        counts = [
            np.unique(self.index.labels[self.places(int(step)).samples], return_counts=True)[1]
            for step in steps
        ]
        entropies = [-(share * np.log2(share)).sum() for share in (c / c.sum() for c in counts)]
        return float(np.mean([len(count) for count in counts])), float(np.mean(entropies))

    def reads(self) -> tuple[int, int]:
        """Return how many runs, and how many bytes, an epoch asks from the disk."""
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


def _cold_read(seen: _Seen, steps: int) -> float:
    """Read the images of the first steps from the disk; return bytes per second."""
    _forget(seen.index)
    moved = 0
    started = time.perf_counter()
    with SampleReader(seen.index, THREADS) as reader, _follow(seen, range(1, steps + 1)) as course:
        for step in course:
            contents = reader.read(seen.places(step).samples)
            moved += sum(len(c) for c in contents if not isinstance(c, OSError))
    return moved / (time.perf_counter() - started)


@contextmanager
def _follow(seen: _Seen, steps: range) -> Generator[Iterable[int]]:
    """Yield the steps as a training with this order comes to them."""
    if isinstance(seen.spec, Shuffled):
        yield steps
        return
    windows = seen.windowed.windows(steps)
    with WindowReader(seen.index, windows, share=lambda _: (0, 1), read_threads=THREADS) as reader:
        yield reader.follow(steps)


def _forget(index: Index) -> None:
    """Have the system drop the files from its cache."""
    for name in index.files.to_pylist():
        descriptor = os.open(index.root / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not yet on disk would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    raise SystemExit(main())
