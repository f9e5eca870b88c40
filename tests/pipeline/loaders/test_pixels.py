"""The pixels of a batch, with the real DALI, compared with PIL, torchvision and numpy."""

import io
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from pipeline.augment.crops import Views, training_views
from pipeline.config.schema import PadCrop, RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.order import BatchIndices
from tests.support.images import Picture, encode, write_pictures
from tests.support.loading import BATCH, SEED, dali, evaluated, indices, joined, open_split, trained
from tests.support.photographs import REAL_IMAGES, real_photographs, smooth

pytestmark = pytest.mark.timeout(60)


def torchvision_view(image: Image.Image, crop: ResizeCenterCrop) -> np.ndarray:
    mode = InterpolationMode(crop.interpolation)
    resized = vision.resize(image, [crop.resize], interpolation=mode)
    return np.asarray(vision.center_crop(resized, [crop.size, crop.size]))


def evaluation_differences(folder: Path, crop: ResizeCenterCrop) -> np.ndarray:
    """Absolute differences from torchvision, in levels of 0 to 255: (n, size, size, 3)."""
    index = open_split(folder).val
    ours = joined(evaluated(dali(folder, evaluation=crop))).images.numpy().astype(int)
    theirs = []
    for sample in range(len(index)):
        with Image.open(index.path(sample)) as image:
            theirs.append(torchvision_view(image.convert("RGB"), crop))
    return np.abs(ours - np.stack(theirs))


MANY_SIZES = {
    "photographs": [(500, 375), (375, 500), (333, 251), (612, 333), (1021, 767), (1301, 225)],
    "squares": [(256, 256), (257, 256), (255, 256), (224, 224)],
    "small": [(97, 61), (64, 300), (300, 1), (1, 300), (2, 2), (1, 1)],
}


@pytest.fixture(scope="module")
def many_sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    pictures = [
        Picture(f"{w}x{h}.png", encode(smooth(w, h), "PNG"), (w, h))
        for w, h in chain(*MANY_SIZES.values())
    ]
    return write_pictures(folder, {"train": pictures[:1], "val": pictures})


EVALUATIONS = [
    ResizeCenterCrop(),
    ResizeCenterCrop(resize=73, size=64),
    ResizeCenterCrop(interpolation="bicubic"),
]


@pytest.mark.slow
@pytest.mark.parametrize("crop", EVALUATIONS, ids=str)
def test_evaluation_has_the_pixels_of_torchvision(many_sizes: Path, crop: ResizeCenterCrop) -> None:
    assert evaluation_differences(many_sizes, crop).max() == 0


@pytest.mark.skipif(not REAL_IMAGES.exists(), reason="the sample of real images is missing")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluated_photographs_have_the_pixels_of_torchvision(
    tmp_path: Path, interpolation: Literal["bilinear", "bicubic"]
) -> None:
    pictures = real_photographs(every=13)
    folder = write_pictures(tmp_path, {"train": pictures[:1], "val": pictures})
    crop = ResizeCenterCrop(interpolation=interpolation)
    difference = evaluation_differences(folder, crop)
    assert len(difference) == 39
    assert difference.max() == 0


def views_of(folder: Path, crop: RandomResizedCrop | PadCrop, at: BatchIndices) -> Views:
    index = open_split(folder).train
    high, wide = index.heights[at.samples], index.widths[at.samples]
    return training_views(crop, at, seed=SEED, heights=high, widths=wide)


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = [(40 + 7 * i, 90 - 5 * i) for i in range(BATCH)]
    pictures = [
        Picture(f"{i}.png", encode(smooth(w, h), "PNG"), (w, h)) for i, (w, h) in enumerate(sizes)
    ]
    return write_pictures(
        tmp_path_factory.mktemp("lossless"), {"train": pictures, "val": pictures[:1]}
    )


def test_random_crops_are_the_windows_that_were_drawn(lossless: Path) -> None:
    crop = RandomResizedCrop(size=32)
    index = open_split(lossless).train
    at = indices(lossless, 1)
    views = views_of(lossless, crop, at)
    assert views.region_start is not None
    assert views.region_shape is not None
    assert views.flip is not None
    assert 0 < views.flip.sum() < BATCH
    batch = trained(dali(lossless, crop=crop), 1, 1)[0].images.numpy().astype(int)
    for i, sample in enumerate(at.samples.tolist()):
        (top, left), (high, wide) = views.region_start[i], views.region_shape[i]
        with Image.open(index.path(sample)) as image:
            window = image.crop((left, top, left + wide, top + high))
        pixels = np.asarray(window.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        difference = np.abs(batch[i] - (pixels[:, ::-1] if views.flip[i] else pixels))
        assert difference.mean() < 0.35
        assert difference.max() <= 1


@pytest.mark.parametrize("pad", [0, 4, 30])
def test_padded_crops_are_exact(lossless: Path, pad: int) -> None:
    crop = PadCrop(size=48, pad=pad)
    index = open_split(lossless).train
    at = indices(lossless, 2)
    views = views_of(lossless, crop, at)
    assert views.crop_start is not None
    assert views.flip is not None
    batch = trained(dali(lossless, crop=crop), 2, 2)[0].images.numpy()
    around = 100
    for i, sample in enumerate(at.samples.tolist()):
        with Image.open(index.path(sample)) as image:
            pixels = np.asarray(image)
        high, wide = pixels.shape[:2]
        canvas = np.empty((high + 2 * around, wide + 2 * around, 3), np.uint8)
        canvas[:] = (124, 116, 104)  # the mean colour of ImageNet
        canvas[around : around + high, around : around + wide] = pixels
        top, left = views.crop_start[i] + around
        view = canvas[top : top + 48, left : left + 48]
        assert np.array_equal(batch[i], view[:, ::-1] if views.flip[i] else view)


def stored(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@cache
def unusual_images() -> dict[str, bytes]:
    """Unusual images, some as in ImageNet and some worse, by what is unusual about them."""
    colour = Image.fromarray(smooth(50, 40))
    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: rotate by 90 degrees, which all readers here ignore
    return {
        "grey JPEG": stored(colour.convert("L"), "JPEG"),
        "CMYK JPEG": stored(colour.convert("CMYK"), "JPEG"),
        "progressive JPEG": stored(colour, "JPEG", progressive=True),
        "whole chroma": stored(colour, "JPEG", subsampling=0, quality=97),
        "turned by EXIF": stored(colour, "JPEG", exif=rotated),
        "RGB PNG": stored(colour, "PNG"),
        "RGBA PNG": stored(colour.convert("RGBA"), "PNG"),
        "palette PNG": stored(colour.quantize(16), "PNG"),
        "grey PNG": stored(colour.convert("L"), "PNG"),
        "one pixel": stored(Image.fromarray(smooth(1, 1)), "JPEG"),
        "one row": stored(Image.fromarray(smooth(50, 1)), "JPEG"),
        "one column": stored(Image.fromarray(smooth(1, 50)), "JPEG"),
        "large": stored(Image.fromarray(smooth(4000, 3000)), "JPEG", quality=50),
    }


@pytest.mark.parametrize("kind", unusual_images())
def test_unusual_images_are_decoded_as_by_pil(tmp_path: Path, kind: str) -> None:
    content = unusual_images()[kind]
    with Image.open(io.BytesIO(content)) as image:
        size, pixels = image.size, np.asarray(image.convert("RGB"))
    picture = Picture("odd.JPEG", content, size)
    folder = write_pictures(tmp_path, {"train": [picture], "val": [picture]})
    middle = ResizeCenterCrop(resize=min(size), size=min(size))  # changes no pixel
    top, left = (round((n - min(size)) / 2) for n in pixels.shape[:2])
    batch = evaluated(dali(folder, evaluation=middle))[0].images.numpy()
    assert np.array_equal(batch[0], pixels[top : top + min(size), left : left + min(size)])
