"""Images compressed again with fewer pixels or fewer bytes, always to the same bytes."""

import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, features

from data.formats.image_header import FORMATS
from data.formats.orientation import stored_pixels

RESAMPLING = Image.Resampling.LANCZOS
"""Of the filters in Pillow, which all antialias, the one that keeps the most detail."""
SUBSAMPLING = "4:4:4"
"""Colour at full resolution: for the same number of bytes it is closer to the original than a
higher quality with less colour, and as fast to decode (docs/shards.md)."""
GREY_MODES = frozenset({"1", "L", "LA", "La"})
RGB_MODES = frozenset({"RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "P", "PA", "LAB", "HSV"})


@dataclass(frozen=True, slots=True)
class Reencoding:
    """How images are compressed again: to at most `shorter_side` pixels, as JPEGs of `quality`.

    With `shorter_side`, an image that is small enough keeps its bytes. Without it, an image keeps
    its bytes unless compressing it again saves some.
    """

    shorter_side: int | None
    quality: int

    def __str__(self) -> str:
        quality = f"JPEG quality {self.quality}"
        if self.shorter_side is None:
            return quality
        return f"shorter side at most {self.shorter_side} pixels, {quality}"

    def apply(self, content: bytes) -> bytes:
        """Return the new content of an image; raises `ValueError` if it cannot be decoded.

        Colours become RGB, grey stays grey. Metadata is dropped; an orientation is not applied,
        just as the loaders ignore it.
        """
        pixels = self._decode(content)
        if pixels is None:
            return content
        size = self._size(*pixels.size)
        if size != pixels.size:
            pixels = pixels.resize(size, RESAMPLING)
        smaller = _jpeg(pixels, self.quality)
        return content if self.shorter_side is None and len(smaller) >= len(content) else smaller

    def _decode(self, content: bytes) -> Image.Image | None:
        """Return the pixels; None if the image is small enough already."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata
            try:
                with Image.open(BytesIO(content), formats=FORMATS) as image:
                    if self.shorter_side is not None and self._size(*image.size) == image.size:
                        return None
                    return _grey_or_rgb(stored_pixels(image))
            except ValueError:
                raise
            except Exception as error:  # a damaged image may break its decoder in any way
                raise ValueError(f"cannot be decoded ({error})") from error

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height; the longer side is rounded half up."""
        shorter = min(width, height)
        if self.shorter_side is None or shorter <= self.shorter_side:
            return width, height
        wide, high = (
            (2 * side * self.shorter_side + shorter) // (2 * shorter) for side in (width, height)
        )
        return wide, high


def encoder() -> str:
    """Return the name of the encoder: other versions may write other bytes for the same pixels."""
    library = features.version("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {Image.__version__}, libjpeg {library}"


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in GREY_MODES:
        return image.convert("L")
    if image.mode in RGB_MODES:
        return image.convert("RGB")
    if image.mode.startswith("I;16"):  # which Pillow would clip at 255
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    raise ValueError(f"has pixels of mode {image.mode}, unlike any JPEG; convert it first")


def _jpeg(pixels: Image.Image, quality: int) -> bytes:
    pixels.info.clear()  # otherwise a comment of the original is kept
    content = BytesIO()
    # Optimised tables would save a fortieth, but Pillow's buffer for them is too small for noise.
    pixels.save(content, "JPEG", quality=quality, subsampling=SUBSAMPLING)
    return content.getvalue()
