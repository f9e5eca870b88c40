"""Pixels made without a loader: exactly those of evaluation and of torchvision."""

from pathlib import Path
from typing import Any

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


VIEWS = [BILINEAR, BICUBIC, ResizeCenterCrop(resize=73, size=64)]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_they_are_those_of_the_loader(tmp_path: Path, view: ResizeCenterCrop) -> None:
    assert differences(tmp_path, made_photographs(), view).max() == 0


@pytest.mark.skipif(not REAL_IMAGES.exists(), reason="the sample of real images is missing")
@pytest.mark.parametrize("view", VIEWS[:2], ids=str)
def test_on_photographs_they_are_those_of_the_loader(
    tmp_path: Path, view: ResizeCenterCrop
) -> None:
    difference = differences(tmp_path, real_photographs(every=13), view)
    assert len(difference) == 39  # all 500 were compared by hand
    assert difference.max() == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_geometry_is_torchvisions_and_the_loaders(data: st.DataObject) -> None:
    width, height = (data.draw(st.integers(1, 90), label=side) for side in ("width", "height"))
    resize = data.draw(st.integers(1, 40), label="resize")
    size = data.draw(st.integers(1, resize), label="size")
    kind = data.draw(st.sampled_from(["bilinear", "bicubic"]))
    view = ResizeCenterCrop(resize=resize, size=size, interpolation=kind)
    image: Any = Image.fromarray(smooth(width, height))
    resized = vision.resize(image, [resize], interpolation=InterpolationMode(kind))
    square = np.asarray(vision.center_crop(resized, [size, size]))
    assert np.array_equal(evaluation_pixels(image, view).numpy(), square)
    views = evaluation_views(view, heights=np.array([height]), widths=np.array([width]))
    assert views.resized is not None
    assert tuple(views.resized[0]) == (resized.height, resized.width)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1"])
def test_every_image_has_three_channels(mode: str) -> None:
    image = Image.fromarray(smooth(40, 40)).convert(mode)
    view = ResizeCenterCrop(resize=40, size=40)  # keeps every pixel
    pixels = evaluation_pixels(image, view)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (40, 40, 3))
    assert np.array_equal(pixels.numpy(), np.asarray(image.convert("RGB")))
