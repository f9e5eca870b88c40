"""Crops fit their images, are distributed like torchvision's, and depend on the sample alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torchvision import transforms

from pipeline.augment.crops import (
    MOST_ELONGATED,
    Views,
    elongated,
    evaluation_views,
    training_views,
)
from pipeline.config.schema import PadCrop, RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.order import BatchIndices

quick = settings(max_examples=50, deadline=None)
sides = st.one_of(st.integers(1, 12), st.integers(1, 6000))
shapes = st.lists(st.tuples(sides, sides), min_size=1, max_size=20)
seeds = st.integers(0, 2**63 - 1)
pairs = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: tuple(sorted(pair)))
ratios = st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(lambda pair: tuple(sorted(pair)))

DRAWS = 4000


def places(count: int, *, first: int = 0, epoch: int = 0) -> BatchIndices:
    return BatchIndices(np.arange(first, first + count), np.full(count, epoch))


def views(
    crop: RandomResizedCrop | PadCrop,
    where: BatchIndices,
    sizes: list[tuple[int, int]],
    *,
    seed: int = 0,
) -> Views:
    heights, widths = np.array(sizes, np.int32).T
    return training_views(crop, where, seed=seed, heights=heights, widths=widths)


def regions(crop: RandomResizedCrop, height: int, width: int) -> tuple[NDArray[np.int64], ...]:
    """Return start and shape of many random crops of one image."""
    drawn = views(crop, places(DRAWS), [(height, width)] * DRAWS)
    assert drawn.region_start is not None
    assert drawn.region_shape is not None
    return drawn.region_start, drawn.region_shape


# -------------------------------------------------------------------------- random resized crop


@quick
@given(shapes, seeds, pairs, ratios)
def test_random_crops_are_inside_the_image(
    sizes: list[tuple[int, int]],
    seed: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> None:
    crop = RandomResizedCrop(size=7, scale=scale, ratio=ratio)
    drawn = views(crop, places(len(sizes)), sizes, seed=seed)
    start, shape = drawn.region_start, drawn.region_shape
    assert start is not None
    assert shape is not None
    assert (start >= 0).all()
    assert (shape >= 1).all()
    assert (start + shape <= np.array(sizes)).all()
    assert drawn.resized is not None
    assert (drawn.resized == 7).all()
    assert drawn.crop_start is None


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (64, 64), (300, 420)])
def test_random_crops_are_distributed_like_torchvisions(height: int, width: int) -> None:
    crop = RandomResizedCrop()
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio))
            for _ in range(DRAWS)
        ]
    )
    start, shape = regions(crop, height, width)
    quantities = [
        (shape.prod(1), theirs[:, 2:].prod(1)),
        (np.log(shape[:, 1] / shape[:, 0]), np.log(theirs[:, 3] / theirs[:, 2])),
        *((start[:, axis], theirs[:, axis]) for axis in (0, 1)),
        *(((start + shape)[:, axis], (theirs[:, :2] + theirs[:, 2:])[:, axis]) for axis in (0, 1)),
    ]
    for mine, other in quantities:
        assert stats.ks_2samp(mine, other).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 40), (1, 1), (37, 50)])
def test_if_no_random_crop_fits_the_central_one_is_torchvisions(height: int, width: int) -> None:
    # With the whole area and an aspect ratio of 3:4, no crop fits a wide image, and vice versa.
    ratio = (0.75, 0.75 + 1e-9) if width > height else (4 / 3, 4 / 3 + 1e-9)
    crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=ratio)
    drawn = views(crop, places(1), [(height, width)])
    assert drawn.region_start is not None
    assert drawn.region_shape is not None
    image = torch.empty(3, height, width)
    top, left, high, wide = transforms.RandomResizedCrop.get_params(image, [1.0, 1.0], list(ratio))
    assert drawn.region_start.tolist() == [[top, left]]
    assert drawn.region_shape.tolist() == [[high, wide]]


def test_area_and_aspect_ratio_are_uniform_within_their_ranges() -> None:
    crop = RandomResizedCrop(scale=(0.2, 0.4), ratio=(0.5, 2.0))
    shape = regions(crop, 1000, 1000)[1]
    area, aspect = shape.prod(1) / 1e6, shape[:, 1] / shape[:, 0]
    assert area.min() == pytest.approx(0.2, abs=0.002)
    assert area.max() == pytest.approx(0.4, abs=0.002)
    assert aspect.min() == pytest.approx(0.5, abs=0.01)
    assert aspect.max() == pytest.approx(2.0, abs=0.02)
    assert stats.kstest(area, "uniform", (0.2, 0.2)).pvalue > 1e-3
    assert stats.kstest(np.log2(aspect), "uniform", (-1, 2)).pvalue > 1e-3
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.05


# ------------------------------------------------------------------------------ pad crop, flips


@quick
@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 20), st.integers(1, 64), seeds)
def test_pad_crops_start_inside_the_padded_image(
    height: int, width: int, pad: int, size: int, seed: int
) -> None:
    drawn = views(PadCrop(size=size, pad=pad), places(30), [(height, width)] * 30, seed=seed)
    assert drawn.crop_start is not None
    room = np.maximum(np.array([height, width]) + 2 * pad - size, 0)
    assert (drawn.crop_start >= -pad).all()
    assert (drawn.crop_start <= room - pad).all()
    assert drawn.region_start is None
    assert drawn.resized is None


def test_pad_crops_are_uniform_and_their_axes_independent() -> None:
    drawn = views(PadCrop(), places(DRAWS), [(32, 32)] * DRAWS)
    assert drawn.crop_start is not None
    assert drawn.flip is not None
    counts = np.zeros((9, 9, 2))
    np.add.at(counts, (*(drawn.crop_start.T + 4), drawn.flip), 1)
    assert counts.sum() == DRAWS
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop()])
def test_half_of_the_images_are_flipped(crop: RandomResizedCrop | PadCrop) -> None:
    flip = views(crop, places(DRAWS), [(40, 40)] * DRAWS).flip
    assert flip is not None
    assert set(flip.tolist()) == {0, 1}
    assert stats.binomtest(int(flip.sum()), DRAWS).pvalue > 1e-3


@pytest.mark.parametrize("crop", [RandomResizedCrop(flip=False), PadCrop(flip=False)])
def test_without_flip_no_image_is_flipped(crop: RandomResizedCrop | PadCrop) -> None:
    assert views(crop, places(10), [(40, 40)] * 10).flip is None


# ---------------------------------------------------------------------------------- randomness


@quick
@given(shapes, seeds, st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.booleans())
def test_a_view_does_not_depend_on_its_neighbours(
    sizes: list[tuple[int, int]], seed: int, epoch: int, first: int, resized: bool
) -> None:
    crop = RandomResizedCrop() if resized else PadCrop()
    together = views(
        crop, places(len(sizes), first=first, epoch=epoch), sizes, seed=seed
    ).geometry()
    for at, size in enumerate(sizes):
        here = places(1, first=first + at, epoch=epoch)
        alone = views(crop, here, [size], seed=seed).geometry()
        assert alone.keys() == together.keys()
        for name, values in alone.items():
            assert np.array_equal(values[0], together[name][at])


@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop(pad=500)])
def test_each_seed_epoch_and_sample_has_another_view(crop: RandomResizedCrop | PadCrop) -> None:
    def view(seed: int, epoch: int, sample: int) -> bytes:
        here = places(1, first=sample, epoch=epoch)
        arrays = views(crop, here, [(1000, 1000)], seed=seed).geometry()
        return b"".join(arrays[name].tobytes() for name in arrays if name != "flip")

    different = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1 << 32, 0, 0), (0, 0, 1 << 32)]
    assert len({view(*one) for one in different}) == len(different)


# ---------------------------------------------------------------------------------- evaluation


@quick
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=8), st.data())
def test_evaluation_views_are_torchvisions_to_the_pixel(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    resize = data.draw(st.integers(1, 600))
    crop = ResizeCenterCrop(resize=resize, size=data.draw(st.integers(1, resize)))
    heights, widths = np.array(sizes, np.int32).T
    mine = evaluation_views(crop, heights=heights, widths=widths)
    assert mine.resized is not None
    assert mine.crop_start is not None
    for at, size in enumerate(sizes):
        resized = transforms.functional._compute_resized_output_size(size, [resize])
        assert mine.resized[at].tolist() == resized
        start = [round((side - crop.size) / 2.0) for side in resized]
        assert mine.crop_start[at].tolist() == start
    assert (mine.crop_start >= 0).all()
    assert (mine.crop_start + crop.size <= mine.resized).all()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (60, 61), (99, 100)])
@pytest.mark.parametrize(("resize", "size"), [(256, 224), (65, 64), (64, 63), (33, 32)])
def test_evaluation_crops_the_same_pixels_as_torchvision(
    height: int, width: int, resize: int, size: int
) -> None:
    """The pixels of the image are their own indices, which show where the square came from."""
    crop = ResizeCenterCrop(resize=resize, size=size)
    mine = evaluation_views(crop, heights=np.array([height]), widths=np.array([width]))
    assert mine.resized is not None
    assert mine.crop_start is not None
    shape = mine.resized[0].tolist()
    assert transforms.Resize(resize)(Image.new("L", (width, height))).size == (shape[1], shape[0])
    ramp = torch.arange(math.prod(shape)).view(1, *shape)
    top, left = mine.crop_start[0].tolist()
    expected = ramp[:, top : top + size, left : left + size]
    assert torch.equal(transforms.CenterCrop(size)(ramp), expected)


@pytest.mark.parametrize("size", [(1, 8000), (8001, 1), (3, 1000), (640, 10), (7, 449)])
@pytest.mark.parametrize("resize", [256, 20])
def test_only_the_centre_of_elongated_images_is_resized(size: tuple[int, int], resize: int) -> None:
    crop = ResizeCenterCrop(resize=resize, size=resize - 8)
    height, width = (np.array([side]) for side in size)
    whole = evaluation_views(crop, heights=height, widths=width)
    mine = evaluation_views(crop, heights=height, widths=width, centre_only=True)
    sides = size, mine.region_start, mine.region_shape, mine.resized, mine.crop_start
    start, shape, resized, crop_start = (side[0].tolist() for side in sides[1:] if side is not None)
    assert max(resized) <= (MOST_ELONGATED + 1) * resize
    assert whole.resized is not None
    assert whole.crop_start is not None
    for axis in (0, 1):
        before, after = start[axis], size[axis] - start[axis] - shape[axis]
        assert before == after >= 0
        moved = before * whole.resized[0, axis] / size[axis]  # in pixels of the resized image
        assert crop_start[axis] + moved == pytest.approx(whole.crop_start[0, axis], abs=1)


def test_ordinary_images_are_resized_as_a_whole() -> None:
    heights, widths = np.array([375, 64, 1]), np.array([500, 1, 64])
    assert not elongated(heights, widths).any()
    whole = evaluation_views(ResizeCenterCrop(), heights=heights, widths=widths)
    mine = evaluation_views(ResizeCenterCrop(), heights=heights, widths=widths, centre_only=True)
    assert mine.region_start is not None
    assert not mine.region_start.any()
    assert np.array_equal(mine.region_shape, np.stack([heights, widths], 1))
    for name in ("resized", "crop_start"):
        assert np.array_equal(getattr(mine, name), getattr(whole, name))
