"""Pixels made without a loader: those of DALI to one level, those of torchvision exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from pipeline.augment.crops import evaluation_views
from pipeline.config.schema import ResizeCenterCrop
from pipeline.weights import evaluation_pixels
from tests.support.images import Picture, write_pictures
from tests.support.loading import dali, evaluated, joined, open_split
from tests.support.photographs import REAL_IMAGES, made_photographs, real_photographs, smooth

BILINEAR, BICUBIC = ResizeCenterCrop(), ResizeCenterCrop(interpolation="bicubic")


def differences(folder: Path, pictures: list[Picture], view: ResizeCenterCrop) -> np.ndarray:
    """Absolute differences to the evaluation loader, in levels of 0 to 255: (n, size, size, 3)."""
    write_pictures(folder, {"train": pictures[:1], "val": pictures})
    theirs = joined(evaluated(dali(folder, evaluation=view))).images.numpy().astype(int)
    index = open_split(folder).val
    ours: list[np.ndarray] = []
    for sample in range(len(index)):
        with Image.open(index.path(sample)) as image:
            ours.append(evaluation_pixels(image, view).numpy())
    return np.abs(np.stack(ours) - theirs)


@pytest.mark.parametrize("view", [BILINEAR, BICUBIC, ResizeCenterCrop(resize=73, size=64)])
def test_they_differ_from_the_loaders_by_one_level(tmp_path: Path, view: ResizeCenterCrop) -> None:
    difference = differences(tmp_path, made_photographs(), view)
    assert difference.mean() < 0.2  # measured: 0.14, 0.15 and 0.10
    assert difference.max() <= 1


@pytest.mark.skipif(not REAL_IMAGES.exists(), reason="the sample of real images is not here")
def test_on_real_photographs_they_differ_by_one_level(tmp_path: Path) -> None:
    difference = differences(tmp_path, real_photographs(every=13), BILINEAR)
    assert len(difference) == 39
    assert difference.mean() < 0.2  # measured on all 500: 0.159
    assert difference.max() <= 1


@pytest.mark.skipif(not REAL_IMAGES.exists(), reason="the sample of real images is not here")
def test_on_real_photographs_bicubic_differs_at_sharp_edges_alone(tmp_path: Path) -> None:
    difference = differences(tmp_path, real_photographs(every=13), BICUBIC)
    assert difference.mean() < 0.2  # measured on all 500: 0.173
    assert (difference > 1).mean() < 1e-3  # 0.0005, and at most 21 levels


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_geometry_is_torchvisions_and_the_loaders(data: st.DataObject) -> None:
    width, height = (data.draw(st.integers(1, 90), label=side) for side in ("width", "height"))
    resize = data.draw(st.integers(1, 40), label="resize")
    size = data.draw(st.integers(1, resize), label="size")
    kind = data.draw(st.sampled_from(["bilinear", "bicubic"]))
    view = ResizeCenterCrop(resize=resize, size=size, interpolation=kind)
    image = Image.fromarray(smooth(width, height))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized = vision.resize(pixels, [resize], interpolation=InterpolationMode(kind))
    square = vision.center_crop(resized, [size, size]).permute(1, 2, 0)
    assert torch.equal(evaluation_pixels(image, view), square)
    views = evaluation_views(view, heights=np.array([height]), widths=np.array([width]))
    assert views.resized is not None
    assert tuple(views.resized[0]) == tuple(resized.shape[1:])


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1"])
def test_every_image_has_three_channels(mode: str) -> None:
    image = Image.fromarray(smooth(40, 40)).convert(mode)
    view = ResizeCenterCrop(resize=40, size=40)  # keeps every pixel
    pixels = evaluation_pixels(image, view)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (40, 40, 3))
    assert np.array_equal(pixels.numpy(), np.asarray(image.convert("RGB")))
