"""The windowed order: shuffle the shards of an epoch, then the images of a few shards at a time.

A shard is a number of images that are consecutive on disk. Each epoch permutes the shards, lays
them end to end on a line, and divides the line into one segment per lane; a lane is a slice of the
global batch. A lane goes through its segment window by window, and the images of each window are
shuffled. So a reader needs one window of a lane at a time, which it can read ahead in long runs.

As in the shuffled order, each epoch has each sample exactly once, epochs follow each other without
a gap, and the batch of step t is computed without the batches before it.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Windowed
from pipeline.dataset.feistel import shuffle
from pipeline.dataset.order import BatchIndices, in_batches, stream_positions

Integers = NDArray[np.int64]

SHARD_DRAWS = 3
WINDOW_DRAWS = 1 << 16
"""Fourth counter words of the draws; lane l shuffles its windows with WINDOW_DRAWS + l."""


@dataclass(frozen=True, slots=True)
class Window:
    """Images that a lane uses from `first_step` to `last_step`, both included; steps start at 1."""

    lane: int
    read_from_step: int
    """From this step on, it is at most one window ahead and may be read."""
    first_step: int
    last_step: int
    runs: Integers
    """Runs of images in storage order: (n, 2) of [begin, end), sorted, with gaps between them."""


@dataclass(frozen=True, slots=True)
class ShardSequence:
    """The shards of an epoch, end to end on a line: int64 of shape (shards,)."""

    shards: Integers
    starts: Integers
    """Where each shard begins on the line."""


@dataclass(frozen=True, slots=True)
class WindowedOrder:
    """The stream of a run in windowed order, a pure function of (dataset, seed, step)."""

    stored: Integers
    """The samples in their order on disk."""
    spec: Windowed
    seed: int
    global_batch: int

    def training_places(self, step: int, *, part: tuple[int, int] = (0, 1)) -> BatchIndices:
        """Return the images of a step (counted from 1), or one rank's part of them."""
        positions = stream_positions(step, global_batch=self.global_batch, part=part)
        epochs = positions // len(self.stored)
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            lanes, indices = self._in_lanes(positions[epochs == epoch], epoch)
            places = self._on_line(lanes, indices, epoch)
            samples[epochs == epoch] = self.stored[self._in_storage(places, epoch)]
        return BatchIndices(samples, epochs)

    def windows(self, steps: range, *, part: tuple[int, int] = (0, 1)) -> Iterator[Window]:
        """Yield the windows that one rank needs for its part of `steps`, by their first step."""
        rank, world = part
        share = self.global_batch // world
        first, last = rank * share, (rank + 1) * share - 1
        lanes = range(first // self._lane_batch, last // self._lane_batch + 1)
        of_lanes = (self._windows_of_lane(lane, steps) for lane in lanes)
        return heapq.merge(*of_lanes, key=lambda window: window.first_step)

    @property
    def _lane_batch(self) -> int:
        """Images of a lane in each global batch."""
        assert self.global_batch % self.spec.lanes == 0, "checked with the configuration"
        return self.global_batch // self.spec.lanes

    @property
    def _window_images(self) -> int:
        return self.spec.window_shards * self.spec.shard_images

    def _in_lanes(self, positions: Integers, epoch: int) -> tuple[Integers, Integers]:
        """Map positions in the stream to lanes, and to indices in the lanes' segments."""
        lanes = positions % self.global_batch // self._lane_batch
        return lanes, self._lane_count(positions, lanes) - self._lane_count(
            epoch * len(self.stored), lanes
        )

    def _on_line(self, lanes: Integers, indices: Integers, epoch: int) -> Integers:
        """Map indices in segments to places on the line; each window is shuffled separately."""
        places = np.empty_like(indices)
        windows, within = np.divmod(indices, self._window_images)
        for lane, window in np.unique(np.stack([lanes, windows], 1), axis=0).tolist():
            chosen = (lanes == lane) & (windows == window)
            begin, end = self._span(epoch, lane, window)
            counter = (epoch, window, WINDOW_DRAWS + lane)
            shuffled = shuffle(within[chosen], end - begin, seed=self.seed, counter=counter)
            places[chosen] = begin + shuffled
        return places

    def _in_storage(self, places: Integers, epoch: int) -> Integers:
        """Map places on the line to places in storage order."""
        line = self._line(epoch)
        slots = np.searchsorted(line.starts, places, side="right") - 1
        return line.shards[slots] * self.spec.shard_images + places - line.starts[slots]

    def _line(self, epoch: int) -> ShardSequence:
        return _lay_out(len(self.stored), self.spec.shard_images, self.seed, epoch)

    def _span(self, epoch: int, lane: int, window: int) -> tuple[int, int]:
        """Return begin and end of a window on the line; a lane's last window may be short."""
        epoch_begin, epoch_end = epoch * len(self.stored), (epoch + 1) * len(self.stored)
        bounds = np.array([lane, lane + 1])
        taken = self._count_below(epoch_end, bounds) - self._count_below(epoch_begin, bounds)
        segment_begin, segment_end = taken.tolist()
        begin = segment_begin + window * self._window_images
        return begin, min(begin + self._window_images, segment_end)

    def _lane_count(self, positions: Integers | int, lanes: Integers) -> Integers:
        """Count the positions of the stream before these that are in the given lanes."""
        return self._count_below(positions, lanes + 1) - self._count_below(positions, lanes)

    def _count_below(self, positions: Integers | int, lanes: Integers) -> Integers:
        """Count the positions of the stream before these that are in lanes below the given ones."""
        steps, rest = np.divmod(np.asarray(positions, np.int64), self.global_batch)
        per_step = lanes * self._lane_batch
        return steps * per_step + np.minimum(rest, per_step)

    def _windows_of_lane(self, lane: int, steps: range) -> Iterator[Window]:
        """Yield the windows of one lane; `at` counts its images from the first step of the run."""
        batch = self._lane_batch
        at, end = (steps.start - 1) * batch, (steps.stop - 1) * batch
        while at < end:
            position = at // batch * self.global_batch + lane * batch + at % batch
            epoch = position // len(self.stored)
            before = self._lane_count(epoch * len(self.stored), np.array([lane]))
            window, within = divmod(at - int(before[0]), self._window_images)
            span = self._span(epoch, lane, window)
            first, at = at - within, at - within + span[1] - span[0]
            yield Window(
                lane,
                read_from_step=max(0, first - self._window_images) // batch + 1,
                first_step=first // batch + 1,
                last_step=(at - 1) // batch + 1,
                runs=self._runs(epoch, *span),
            )

    def _runs(self, epoch: int, begin: int, end: int) -> Integers:
        """Return the images of [begin, end) on the line as sorted runs in storage order."""
        line = self._line(epoch)
        first, last = np.searchsorted(line.starts, [begin, end - 1], side="right") - 1
        shards, starts = line.shards[first : last + 1], line.starts[first : last + 1]
        ends = np.append(starts[1:], end)
        in_storage = shards * self.spec.shard_images - starts
        runs = np.stack([np.maximum(starts, begin) + in_storage, ends + in_storage], 1)
        runs = runs[np.argsort(runs[:, 0])]
        apart = np.flatnonzero(runs[1:, 0] != runs[:-1, 1])
        return np.stack([runs[np.append(0, apart + 1), 0], runs[np.append(apart, -1), 1]], 1)


def storage_places(stored: Integers, *, part: tuple[int, int], batch: int) -> list[BatchIndices]:
    """Return one rank's batches of a split in storage order, each rank a consecutive share.

    Over all ranks each sample comes exactly once, as in `evaluation_places`.
    """
    rank, world = part
    begin, end = (len(stored) * bound // world for bound in (rank, rank + 1))
    return in_batches(stored[begin:end], batch)


@lru_cache(maxsize=4)
def _lay_out(samples: int, shard_images: int, seed: int, epoch: int) -> ShardSequence:
    """Lay out an epoch; the last shard in storage may be short, and may come anywhere."""
    count = -(-samples // shard_images)
    slots = np.arange(count, dtype=np.int64)
    shards = shuffle(slots, count, seed=seed, counter=(epoch, 0, SHARD_DRAWS))
    images = np.minimum(shard_images, samples - shards * shard_images)
    return ShardSequence(shards, np.cumsum(images) - images)
