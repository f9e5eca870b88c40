"""Law 1: the stream of global batches is a pure function of (dataset, seed, step)."""

import tracemalloc
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pipeline.dataset.order import BatchIndices, evaluation_places, permute, training_places

quick = settings(max_examples=30, deadline=None)
sizes = st.one_of(st.integers(1, 9), st.integers(1, 2000))
seeds = st.integers(0, 2**63 - 1)
epochs = st.one_of(st.integers(0, 100), st.integers(0, 2**40))


def order(samples: int, *, seed: int = 0, epoch: int = 0) -> NDArray[np.int64]:
    return permute(np.arange(samples), samples, seed=seed, epoch=epoch)


def joined(parts: list[BatchIndices]) -> tuple[list[int], list[int]]:
    return (
        [int(number) for part in parts for number in part.samples],
        [int(epoch) for part in parts for epoch in part.epochs],
    )


@quick
@given(sizes, seeds, epochs)
def test_each_epoch_is_a_permutation(samples: int, seed: int, epoch: int) -> None:
    numbers = order(samples, seed=seed, epoch=epoch)
    assert numbers.dtype == np.int64
    assert np.array_equal(np.sort(numbers), np.arange(samples))


@pytest.mark.parametrize("samples", [*range(1, 70), 2**12 - 1, 2**12, 2**12 + 1])
def test_every_size_is_a_permutation(samples: int) -> None:
    assert np.array_equal(np.sort(order(samples, seed=samples)), np.arange(samples))


@quick
@given(sizes, seeds, st.integers(1, 10**6), st.integers(1, 60), st.integers(1, 6))
def test_ranks_split_the_same_global_batch(
    samples: int, seed: int, step: int, share: int, world: int
) -> None:
    batch = share * world
    whole = training_places(step, samples=samples, seed=seed, global_batch=batch)
    parts = [
        training_places(step, samples=samples, seed=seed, global_batch=batch, part=(rank, world))
        for rank in range(world)
    ]
    assert all(len(part.samples) == share for part in parts)
    assert joined(parts) == joined([whole])


@quick
@given(sizes, seeds, st.integers(1, 40), st.integers(0, 99))
def test_a_step_does_not_depend_on_the_steps_before(
    samples: int, seed: int, batch: int, shuffle: int
) -> None:
    steps = list(range(1, 7))

    def places(step: int) -> tuple[list[int], list[int]]:
        return joined([training_places(step, samples=samples, seed=seed, global_batch=batch)])

    sequential = {step: places(step) for step in steps}
    Random(shuffle).shuffle(steps)
    assert {step: places(step) for step in steps} == sequential


@pytest.mark.slow
@quick
@given(st.integers(1, 300), seeds, st.integers(1, 700))
def test_the_stream_has_no_gaps(samples: int, seed: int, batch: int) -> None:
    """Even if the batch does not divide the dataset, or is larger than it."""
    passes = 3
    steps = range(1, passes * samples // batch + 2)
    numbers, of_epoch = joined(
        [training_places(step, samples=samples, seed=seed, global_batch=batch) for step in steps]
    )
    assert of_epoch == [position // samples for position in range(len(steps) * batch)]
    for epoch in range(passes):
        one = numbers[epoch * samples : (epoch + 1) * samples]
        assert sorted(one) == list(range(samples))
        assert one == order(samples, seed=seed, epoch=epoch).tolist()


def test_the_order_never_changes_between_releases() -> None:
    """A run that a later release resumes continues in the same order."""
    assert order(10, seed=7, epoch=3).tolist() == [3, 4, 7, 5, 2, 8, 9, 6, 0, 1]
    assert order(1000, seed=2**40 + 1, epoch=2**33)[:5].tolist() == [180, 875, 393, 690, 467]
    imagenet = training_places(5, samples=1_281_167, seed=0, global_batch=4)
    assert imagenet.samples.tolist() == [1145931, 572248, 728537, 114168]
    small = training_places(3, samples=11, seed=2**63 - 1, global_batch=9)
    assert joined([small]) == ([8, 6, 1, 5, 4, 8, 9, 7, 0], [1, 1, 1, 1, 2, 2, 2, 2, 2])


def test_each_epoch_and_seed_has_another_order() -> None:
    seen = {order(50, seed=seed, epoch=epoch).tobytes() for seed in range(30) for epoch in range(9)}
    seen |= {order(50, seed=seed << 32).tobytes() for seed in range(1, 30)}
    assert len(seen) == 30 * 9 + 29


@pytest.mark.slow
@pytest.mark.parametrize("samples", [2, 3, 5, 8, 13])
def test_each_sample_has_each_position_equally_often(samples: int) -> None:
    orders = np.stack([order(samples, seed=5, epoch=epoch) for epoch in range(2000)])
    for place in range(samples):
        assert stats.chisquare(np.bincount(orders[:, place], minlength=samples)).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("samples", [3, 4])
def test_every_order_of_few_samples_is_equally_likely(samples: int) -> None:
    orders = [order(samples, seed=11, epoch=epoch).tolist() for epoch in range(3000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == {3: 6, 4: 24}[samples]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbours_and_epochs_are_not_correlated() -> None:
    orders = [order(10_000, seed=1, epoch=epoch) for epoch in range(5)]
    for epoch, numbers in enumerate(orders):
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.04
        assert abs(np.corrcoef(numbers, np.arange(10_000))[0, 1]) < 0.04
        assert abs(np.corrcoef(numbers, orders[epoch - 1])[0, 1]) < 0.04
        # Neighbours in the dataset share a class; about one pair stays together by chance.
        assert (np.diff(numbers) == 1).sum() < 10


@quick
@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 100))
def test_evaluation_takes_each_sample_exactly_once(samples: int, world: int, batch: int) -> None:
    """Even if there are more ranks than samples."""
    ranks = [evaluation_places(samples, part=(rank, world), batch=batch) for rank in range(world)]
    numbers, of_epoch = joined([places for places_of_rank in ranks for places in places_of_rank])
    assert sorted(numbers) == list(range(samples))
    assert not any(of_epoch)
    assert all(1 <= len(places.samples) <= batch for part in ranks for places in part)
    shares = [sum(len(places.samples) for places in part) for part in ranks]
    assert max(shares) - min(shares) <= 1


def test_a_hundred_million_samples_take_little_memory() -> None:
    tracemalloc.start()
    try:
        places = training_places(300_000, samples=100_000_000, seed=1, global_batch=4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6
    assert len(np.unique(places.samples)) == 4096
    assert places.samples.max() > 90_000_000
