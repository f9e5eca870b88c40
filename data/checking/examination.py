"""The header of an image, compared with the index and checked for oddities."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.checking.flaws import LARGE_PIXELS, LARGE_TIMES_MEDIAN, SMALL_SIDE_PIXELS, Flaw
from data.formats.image_colours import disputed_colours
from data.formats.image_header import JPEG, image_kind, image_size, jpeg_channels
from pipeline.augment.crops import MOST_ELONGATED
from pipeline.dataset.index import Index

MOST_DECODED_PIXELS = 1_000_000_000
"""Three gigabytes of pixels; a damaged header may ask for more than the memory has."""


class StoredImage(NamedTuple):
    """The bytes of a sample."""

    sample: int
    content: bytes


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The number of pixels above which an image of a split is large."""

    large_pixels: int

    @staticmethod
    def of(index: Index) -> "SizeLimits":
        """Return the limits for a split, which depend on its median."""
        pixels = index.widths.astype(np.int64) * index.heights
        median = float(np.median(pixels)) if len(pixels) else 0.0
        return SizeLimits(min(LARGE_PIXELS, round(LARGE_TIMES_MEDIAN * median)))


def examine(index: Index, image: StoredImage, limits: SizeLimits) -> tuple[str, list[Flaw]]:
    """Return the format of an image, and its flaws: at most one fault, and any findings."""
    sample, content = image
    kind = image_kind(content)
    try:
        size = image_size(content)
    except ValueError as error:
        return kind, [Flaw(sample, "corrupt", f"{error}; by its first bytes: {kind}")]
    flaws = _about_size(index, sample, size, limits)
    if disputed := disputed_colours(content, kind):
        flaws.append(Flaw(sample, "colours", disputed))
    if kind != JPEG:
        flaws.append(Flaw(sample, "not-jpeg", f"by its first bytes: {kind}"))
    elif jpeg_channels(content) == 4:
        flaws.append(Flaw(sample, "cmyk", "a JPEG with four channels"))
    return kind, flaws


def drop_ordinary(flaws: Sequence[Flaw], kinds: Counter[str]) -> list[Flaw]:
    """Drop `not-jpeg` findings if at most half of the images are JPEGs: others are normal there."""
    if 2 * kinds[JPEG] > kinds.total():
        return list(flaws)
    return [flaw for flaw in flaws if flaw.kind != "not-jpeg"]


def _about_size(index: Index, sample: int, size: tuple[int, int], limits: SizeLimits) -> list[Flaw]:
    width, height = size
    flaws: list[Flaw] = []
    indexed = int(index.widths[sample]), int(index.heights[sample])
    stored = f"{width} x {height} pixels"
    if size != indexed:
        reason = f"{stored}, but the index has {indexed[0]} x {indexed[1]}"
        flaws.append(Flaw(sample, "wrong-size", reason))
    elif width * height > MOST_DECODED_PIXELS:
        flaws.append(Flaw(sample, "corrupt", f"{stored}: too many to decode"))
    if width * height > limits.large_pixels:
        flaws.append(Flaw(sample, "large", stored))
    if min(size) < SMALL_SIDE_PIXELS:
        flaws.append(Flaw(sample, "small", stored))
    if max(size) > MOST_ELONGATED * min(size):
        flaws.append(Flaw(sample, "elongated", stored))
    return flaws
