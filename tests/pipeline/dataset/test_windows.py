"""The windowed order is a pure function of (dataset, seed, step), as the shuffled order is."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config.load import load
from pipeline.config.schema import Shuffled, Windowed
from pipeline.dataset.windows import Window, WindowedOrder, storage_places

RECIPE = Path(__file__).parents[3] / "configs/resnet50.yaml"
quick = settings(max_examples=30, deadline=None)


@st.composite
def orders(draw: st.DrawFn) -> WindowedOrder:
    """Orders of awkward sizes: shards larger than the dataset, batches larger than an epoch."""
    samples = draw(st.integers(1, 12) | st.integers(1, 300))
    lanes = draw(st.integers(1, 5))
    spec = Windowed(
        shard_images=draw(st.integers(1, 12) | st.integers(1, 400)),
        window_shards=draw(st.integers(1, 6)),
        lanes=lanes,
    )
    random = np.random.default_rng(draw(st.integers(0, 99)))
    batch = lanes * draw(st.integers(1, 12) | st.integers(1, 40))
    seed = draw(st.integers(0, 2**63 - 1))
    return WindowedOrder(random.permutation(samples), spec, seed, batch)


def order(samples: int, *, seed: int = 0, batch: int = 10, **spec: int) -> WindowedOrder:
    return WindowedOrder(np.arange(samples), Windowed(**spec), seed, batch)


def stream(
    order: WindowedOrder, steps: range, part: tuple[int, int] = (0, 1)
) -> tuple[list[int], list[int]]:
    places = [order.training_places(step, part=part) for step in steps]
    return (
        [int(number) for of_step in places for number in of_step.samples],
        [int(epoch) for of_step in places for epoch in of_step.epochs],
    )


def steps_of(order: WindowedOrder, epochs: int) -> range:
    """Return the steps that start within the first epochs."""
    return range(1, -(-epochs * len(order.stored) // order.global_batch) + 1)


def epoch_of(order: WindowedOrder, epoch: int) -> list[int]:
    numbers, _ = stream(order, steps_of(order, epoch + 1))
    count = len(order.stored)
    return numbers[epoch * count : (epoch + 1) * count]


# ---------------------------------------------------------------------------------------- places


@quick
@given(orders())
def test_each_epoch_has_each_sample_once_and_the_stream_has_no_gaps(
    order: WindowedOrder,
) -> None:
    samples, steps = len(order.stored), steps_of(order, 3)
    numbers, epochs = stream(order, steps)
    assert epochs == [at // samples for at in range(len(steps) * order.global_batch)]
    for epoch in range(3):
        assert sorted(numbers[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@quick
@given(orders(), st.integers(1, 10**6), st.integers(1, 6))
def test_ranks_split_the_same_global_batch(order: WindowedOrder, step: int, world: int) -> None:
    """Whether or not the number of ranks divides the number of lanes."""
    order = replace(order, global_batch=order.global_batch * world)
    steps = range(step, step + 1)
    parts = [stream(order, steps, (rank, world)) for rank in range(world)]
    whole = stream(order, steps)
    assert tuple(map(list, whole)) == (
        [number for numbers, _ in parts for number in numbers],
        [epoch for _, epochs in parts for epoch in epochs],
    )


@pytest.mark.slow
@quick
@given(orders(), st.permutations(range(1, 7)))
def test_a_step_does_not_depend_on_the_steps_before(
    order: WindowedOrder, shuffled: list[int]
) -> None:
    sequential = {step: stream(order, range(step, step + 1)) for step in range(1, 7)}
    for step in shuffled:
        assert stream(replace(order), range(step, step + 1)) == sequential[step]


def test_the_order_never_changes_between_releases() -> None:
    """A run that a later release resumes continues in the same order."""
    known = order(50, seed=7, batch=8, shard_images=6, window_shards=2, lanes=2)
    numbers, _ = stream(known, range(7, 9))  # across the end of an epoch
    assert numbers == [43, 42, 14, 33, 40, 36, 39, 38, 49, 12, 30, 17, 25, 28, 26, 27]


@pytest.mark.slow
def test_each_epoch_and_seed_has_another_order() -> None:
    small = {"shard_images": 8, "window_shards": 3}
    seen = {
        tuple(epoch_of(order(50, seed=seed, **small), epoch))
        for seed in [*range(20), *(seed << 32 for seed in range(1, 20))]
        for epoch in range(4)
    }
    assert len(seen) == 39 * 4


def test_each_window_of_each_lane_has_another_permutation() -> None:
    windows, lanes, images = 5, 4, 20
    known = order(windows * lanes * images, batch=8, shard_images=20, window_shards=1, lanes=4)
    seen: set[bytes] = set()
    for epoch in range(3):
        numbers = np.array(epoch_of(known, epoch)).reshape(-1, lanes, 2)
        for lane in range(lanes):
            for window in numbers[:, lane].reshape(windows, images):
                assert len(np.unique(window // images)) == 1
                seen.add((window % images).tobytes())
    assert len(seen) == 3 * windows * lanes


def test_shards_come_in_another_order_each_epoch() -> None:
    known = order(400, shard_images=20, window_shards=1)
    for epoch in range(3):
        shards = np.array(epoch_of(known, epoch))[::20] // 20
        assert sorted(shards) == list(range(20))
        assert abs(np.corrcoef(shards, np.arange(20))[0, 1]) < 0.7


def test_a_hundred_million_samples_take_little_memory() -> None:
    class StoredInIndexOrder:
        def __len__(self) -> int:
            return 100_000_000

        def __getitem__(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
            return at

    spec = Windowed(shard_images=1024, window_shards=16, lanes=8)
    known = WindowedOrder(cast("Any", StoredInIndexOrder()), spec, 1, 4096)
    tracemalloc.start()
    try:
        places = known.training_places(300_000)
        window = next(known.windows(range(300_000, 300_001)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert len(np.unique(places.samples)) == 4096
    assert window.first_step <= 300_000 <= window.last_step


# --------------------------------------------------------------------------------------- windows


def images_of(window: Window) -> int:
    return int((window.runs[:, 1] - window.runs[:, 0]).sum())


def in_storage(window: Window) -> NDArray[np.int64]:
    return np.concatenate([np.arange(begin, end) for begin, end in window.runs.tolist()])


@pytest.mark.slow
@quick
@given(orders(), st.integers(0, 9))
def test_each_lane_uses_its_windows_in_order(order: WindowedOrder, steps: int) -> None:
    lanes, batch = order.spec.lanes, order.global_batch // order.spec.lanes
    whole = order.spec.window_shards * order.spec.shard_images
    for lane in range(lanes):
        windows = list(order.windows(range(1, steps + 1), part=(lane, lanes)))
        last = max((window.last_step for window in windows), default=0)
        numbers, _ = stream(order, range(1, last + 1), (lane, lanes))
        begin = 0
        for window in windows:
            end = begin + images_of(window)
            assert sorted(numbers[begin:end]) == sorted(order.stored[in_storage(window)].tolist())
            assert 1 <= end - begin <= whole
            assert np.all(window.runs[1:, 0] > window.runs[:-1, 1]), "adjacent runs are merged"
            assert window.lane == lane
            assert window.read_from_step == max(0, begin - whole) // batch + 1
            assert window.first_step == begin // batch + 1 <= steps
            assert window.last_step == (end - 1) // batch + 1
            begin = end
        assert begin >= steps * batch


@pytest.mark.slow
@quick
@given(orders(), st.integers(1, 12))
def test_a_stream_that_starts_later_has_the_remaining_windows(
    order: WindowedOrder, first: int
) -> None:
    def described(steps: range) -> list[tuple[int, int, int, bytes]]:
        windows = order.windows(steps)
        return [(w.lane, w.first_step, w.last_step, w.runs.tobytes()) for w in windows]

    from_start = described(range(1, 13))
    left = [window for window in from_start if window[2] >= first]
    assert sorted(described(range(first, 13))) == sorted(left)
    assert [window[1] for window in from_start] == sorted(window[1] for window in from_start)


@quick
@given(orders())
def test_a_window_needs_few_shards_and_lanes_share_only_those_at_their_borders(
    order: WindowedOrder,
) -> None:
    samples, images = len(order.stored), order.spec.shard_images
    short = (samples - 1) // images if samples % images else -1
    lanes_of: dict[int, set[int]] = {}
    for window in order.windows(steps_of(order, 1)):
        shards = set((in_storage(window) // images).tolist())
        # A window may start within a shard, and a short shard leaves room for one more.
        assert len(shards) <= order.spec.window_shards + 1 + (short in shards)
        if window.last_step * order.global_batch <= samples:  # certainly in the first epoch
            for shard in shards:
                lanes_of.setdefault(shard, set()).add(window.lane)
    shared = [shard for shard, lanes in lanes_of.items() if len(lanes) > 1]
    assert len(shared) <= order.spec.lanes - 1


# ------------------------------------------------------------------------------------ evaluation


@quick
@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 100))
def test_evaluation_reads_the_storage_once_in_order(samples: int, world: int, batch: int) -> None:
    """Each rank reads one run, even if there are more ranks than samples."""
    stored = np.random.default_rng(samples).permutation(samples)
    ranks = [storage_places(stored, part=(rank, world), batch=batch) for rank in range(world)]
    numbers = [int(n) for of_rank in ranks for places in of_rank for n in places.samples]
    assert numbers == stored.tolist()
    assert all(1 <= len(places.samples) <= batch for part in ranks for places in part)
    shares = [sum(len(places.samples) for places in part) for part in ranks]
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_window_of_the_whole_epoch_mixes_like_the_shuffled_order(lanes: int) -> None:
    """Neighbours in storage are scattered over the epoch."""
    known = order(10_000, batch=100, shard_images=10, window_shards=1000, lanes=lanes)
    numbers = np.array(epoch_of(known, 1))
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.04
    assert (np.diff(numbers) == 1).sum() < 10 * lanes


# --------------------------------------------------------------------------------- configuration


def test_the_order_is_chosen_by_name() -> None:
    assert load(RECIPE).data.order == Shuffled()
    config = load(RECIPE, ["data.order.name=windowed", "data.order.window_shards=32"])
    assert config.data.order == Windowed(window_shards=32)
    with pytest.raises(ValueError, match="is a key of windowed only"):
        load(RECIPE, ["data.order.window_shards=32"])


def test_lanes_that_do_not_divide_the_batch_are_refused_with_a_remedy() -> None:
    lanes = "data.order={name: windowed, lanes: 3}"
    remedy = "lanes=3 must divide train.global_batch=64; .* a global batch of 63 or 66"
    with pytest.raises(ValueError, match=remedy):
        load(RECIPE, [lanes, "train.global_batch=64"])
    assert load(RECIPE, [lanes, "train.global_batch=66"]).train.global_batch == 66
