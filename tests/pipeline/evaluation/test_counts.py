"""Law 4: evaluation counts every image exactly once, and errors are integer sums."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pipeline.dataset.order import evaluation_places
from pipeline.distributed.world import World
from pipeline.evaluation.counts import Counts, count_errors, evaluate
from pipeline.loaders import Batch

quick = settings(max_examples=60, deadline=None)
NAN, INFINITY = float("nan"), float("inf")


def outcomes(samples: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits without ties, some of them not finite, and labels, some of them unknown."""
    generator = np.random.default_rng(seed)
    logits = np.stack([generator.permutation(classes) for _ in range(samples)]).astype(np.float32)
    labels = generator.integers(0, classes, samples)
    labels[generator.random(samples) < 0.1] = -1
    logits[generator.random(samples) < 0.1, generator.integers(classes)] = NAN
    return torch.from_numpy(logits), torch.from_numpy(labels)


def direct(logits: Tensor, labels: Tensor) -> tuple[int, int, int]:
    """Count image by image, in the simplest way."""
    top1 = top5 = 0
    for row, label in zip(logits.numpy(), labels.numpy(), strict=True):
        ranked = np.argsort(-row)[:5].tolist()
        known = bool(np.isfinite(row).all())
        top1 += not (known and label == ranked[0])
        top5 += not (known and label in ranked)
    return len(labels), top1, top5


def batches_of(rank: int, world: int, batch: int, labels: Tensor) -> list[Batch]:
    """Return the batches of one rank; each image is its own number."""
    return [
        Batch(torch.from_numpy(places.samples), labels[places.samples])
        for places in evaluation_places(len(labels), part=(rank, world), batch=batch)
    ]


@quick
@given(
    st.integers(1, 120),
    st.integers(1, 12),
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(1, 50),
)
def test_counts_do_not_depend_on_world_and_batch(
    samples: int, classes: int, seed: int, world: int, batch: int
) -> None:
    logits, labels = outcomes(samples, classes, seed)
    counts = torch.zeros(3, dtype=torch.int64)
    for rank in range(world):
        for part in batches_of(rank, world, batch, labels):
            counts += count_errors(logits[part.images], part.labels)
    assert tuple(counts.tolist()) == direct(logits, labels)


@quick
@given(st.integers(1, 120), st.integers(1, 12), st.integers(0, 2**32), st.lists(st.integers(1, 50)))
def test_evaluate_counts_like_the_simplest_way(
    samples: int, classes: int, seed: int, batch_sizes: list[int]
) -> None:
    logits, labels = outcomes(samples, classes, seed)
    results = [
        evaluate(
            lambda images: logits[images],
            batches_of(0, 1, batch, labels),
            samples=samples,
            world=World(),
        )
        for batch in [samples, *batch_sizes]
    ]
    images, top1, top5 = direct(logits, labels)
    for counts in results:
        assert (counts.images, counts.top1_errors, counts.top5_errors) == (images, top1, top5)
        assert counts.top1_error_percent == 100 * top1 / images
        assert counts.top5_error_percent == 100 * top5 / images


def test_loss_is_the_mean_over_images_not_over_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 7, generator=generator)
    labels = torch.arange(10) % 7
    counts = evaluate(
        lambda images: logits[images],
        batches_of(0, 1, 4, labels),
        samples=10,
        world=World(),
    )
    assert counts.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


def test_a_missing_or_repeated_image_is_an_error() -> None:
    logits, labels = outcomes(20, 5, 0)
    for part in (batches_of(0, 2, 3, labels), batches_of(0, 1, 3, labels) * 2):
        with pytest.raises(AssertionError, match="images were evaluated, but there are 20"):
            evaluate(lambda images: logits[images], part, samples=20, world=World())


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 6, 1000])
@pytest.mark.parametrize("value", [0.0, 1.5, -3.0])
def test_equal_logits_err_as_often_as_chance(classes: int, value: float) -> None:
    """Exactly one of equal logits is the best, and exactly five are among the best five."""
    counts = count_errors(torch.full((classes, classes), value), torch.arange(classes))
    assert counts.tolist() == [classes, classes - 1, max(0, classes - 5)]


@quick
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**32))
def test_with_ties_a_top1_hit_is_a_top5_hit(classes: int, samples: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 3, (samples, classes), generator=generator).float()
    labels = torch.randint(0, classes, (samples,), generator=generator)
    for at in range(samples):
        _, top1, top5 = count_errors(logits[at : at + 1], labels[at : at + 1]).tolist()
        better = int((logits[at] > logits[at, labels[at]]).sum())
        as_good = int((logits[at] == logits[at, labels[at]]).sum())
        assert top5 <= top1
        assert not (better == 0 and as_good == 1 and top1)
        assert not (better + as_good <= 5 and top5)
        assert better == 0 or top1
        assert better < 5 or top5


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("place", [0, 3, 9])
def test_logits_that_are_not_finite_are_errors(bad: float, place: int) -> None:
    logits = torch.arange(10.0).repeat(2, 1)
    logits[1, place] = bad
    assert count_errors(logits, torch.tensor([9, 9])).tolist() == [2, 1, 1]
    assert count_errors(torch.full((3, 10), bad), torch.arange(3)).tolist() == [3, 3, 3]


def test_an_unreadable_image_is_an_error() -> None:
    logits = torch.arange(10.0).repeat(4, 1)
    assert count_errors(logits, torch.tensor([9, -1, -1, 5])).tolist() == [4, 3, 2]
    part = [Batch(torch.arange(2), torch.tensor([9, -1]))]
    counts = evaluate(lambda images: logits[images], part, samples=2, world=World())
    assert (counts.top1_error_percent, counts.top5_error_percent) == (50.0, 50.0)
    assert np.isfinite(counts.loss)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5])
def test_five_classes_or_fewer_have_no_top5_errors(classes: int) -> None:
    logits, labels = torch.randn(30, classes), torch.arange(30) % classes
    assert count_errors(logits, labels)[2] == 0


def test_counts_are_exact_beyond_float32() -> None:
    """A float32 cannot represent 2**24 + 1."""
    counts = Counts(images=2**24 + 1, top1_errors=2**24 + 1, top5_errors=2**24, loss=0.0)
    assert counts.top1_error_percent == 100
    assert counts.top5_error_percent < 100
    assert count_errors(torch.zeros(1, 6), torch.tensor([5])).dtype == torch.int64
