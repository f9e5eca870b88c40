"""Real photographs, where the sample of them is at hand, and made ones that resemble them."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.images import Picture, encode

REAL_IMAGES = Path(__file__).parents[3] / "shared/data/imagenet-sample.tar"
MADE_SIZES = ((500, 375), (375, 500), (333, 251), (1021, 767), (301, 1300), (97, 61), (257, 256))


def real_photographs(every: int) -> list[Picture]:
    """One of `every` images of the sample, as it is stored."""
    pictures: list[Picture] = []
    with tarfile.open(REAL_IMAGES) as archive:
        for member in [member for member in archive if member.isfile()][::every]:
            stored = archive.extractfile(member)
            assert stored
            content = stored.read()
            with Image.open(io.BytesIO(content)) as image:
                pictures.append(Picture(Path(member.name).name, content, image.size))
    return pictures


def made_photographs() -> list[Picture]:
    """JPEGs with detail at every scale, as photographs have."""
    return [
        Picture(f"{width}x{height}.JPEG", encode(smooth(width, height)), (width, height))
        for width, height in MADE_SIZES
    ]


def smooth(width: int, height: int) -> np.ndarray:
    random = np.random.default_rng(width)
    pixels = np.zeros((height, width, 3))
    for cells in (2, 5, 17, 60):
        coarse = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        pixels += np.asarray(fine) / 4
    return pixels.astype(np.uint8)
