"""Crops and flips of each image: a pure function of (seed, epoch, sample, image size).

The result is plain geometry, which the loader executes. Draws follow torchvision's transforms
(RandomResizedCrop, RandomCrop with padding, RandomHorizontalFlip), but the randomness is counted,
not stateful.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PadCrop, RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.order import BatchIndices
from pipeline.dataset.philox import Words, below, philox, uniform

Integers = NDArray[np.int64]

FLIP_DRAWS = 2
CROP_DRAWS = 16
"""Fourth counter words of the draws; attempt k of a crop draws with CROP_DRAWS + k."""
ATTEMPTS = 10
"""Random crops to try before the central crop is taken, as in torchvision."""
MOST_ELONGATED = 64
"""Evaluation uses only the centre of images that are longer than this times their width: an image
of 8000 x 1 pixels, resized as a whole, would take gigabytes."""


@dataclass(frozen=True, slots=True)
class Views:
    """How n images are cropped, resized and flipped, in this order; None where a step is skipped.

    Arrays are int64: of shape (n, 2), as (y, x) or (height, width) in pixels, and (n,) for `flip`.
    """

    size: int
    """Side of the finished square."""
    region_start: Integers | None = None
    region_shape: Integers | None = None
    """The part of the stored image that is used."""
    resized: Integers | None = None
    """The size that this part is resized to."""
    crop_start: Integers | None = None
    """Where the finished square begins; outside the image it is filled with the mean colour."""
    flip: Integers | None = None
    """1 where the square is mirrored, else 0."""

    def geometry(self) -> dict[str, Integers]:
        """Return the arrays that are not None, by name, in the order in which they apply."""
        names = ("region_start", "region_shape", "resized", "crop_start", "flip")
        arrays = {name: getattr(self, name) for name in names}
        return {name: array for name, array in arrays.items() if array is not None}


def training_views(
    crop: RandomResizedCrop | PadCrop,
    places: BatchIndices,
    *,
    seed: int,
    heights: NDArray[np.integer],
    widths: NDArray[np.integer],
) -> Views:
    """Return the augmented views of images with these heights and widths in pixels."""
    high, wide = heights.astype(np.int64), widths.astype(np.int64)
    flip = _draw(seed, places, FLIP_DRAWS)[0] >> 31 if crop.flip else None
    flips = None if flip is None else flip.astype(np.int64)
    match crop:
        case RandomResizedCrop():
            start, shape = _random_regions(crop, places, seed, high, wide)
            square = np.full_like(shape, crop.size)
            return Views(crop.size, start, shape, square, None, flips)
        case PadCrop():
            words = _draw(seed, places, CROP_DRAWS)
            room = np.stack([high, wide], 1) + 2 * crop.pad - crop.size
            start = below(words[:2].T, np.maximum(room, 0) + 1) - crop.pad
            return Views(crop.size, crop_start=start, flip=flips)


def evaluation_views(
    crop: ResizeCenterCrop,
    *,
    heights: NDArray[np.integer],
    widths: NDArray[np.integer],
    centre_only: bool = False,
) -> Views:
    """Return central views, pixel for pixel those of torchvision's Resize and CenterCrop.

    With `centre_only`, the views have a region: the whole image or, if it is elongated, its centre,
    whose view is the same except for rounding.
    """
    whole = np.stack([heights, widths], 1).astype(np.int64)
    shorter = whole.min(1, keepdims=True)
    shape, start = whole, None
    if centre_only:
        longest = MOST_ELONGATED * shorter
        shape = np.minimum(whole, longest + (whole - longest) % 2)  # an exact centre
        start = (whole - shape) // 2
    resized = crop.resize * shape // shorter  # torchvision truncates the longer side
    crop_start = np.rint((resized - crop.size) / 2).astype(np.int64)  # and rounds half to even
    region = None if start is None else shape
    return Views(crop.size, start, region, resized=resized, crop_start=crop_start)


def elongated(heights: NDArray[np.integer], widths: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which images are so elongated that evaluation uses only their centre."""
    shorter, longer = np.minimum(heights, widths), np.maximum(heights, widths)
    return longer > MOST_ELONGATED * shorter.astype(np.int64)


def _draw(seed: int, places: BatchIndices, stream: int) -> Words:
    low, high = places.samples & 0xFFFFFFFF, places.samples >> 32
    return philox(seed, low, high, places.epochs, stream)


def _random_regions(
    crop: RandomResizedCrop, places: BatchIndices, seed: int, high: Integers, wide: Integers
) -> tuple[Integers, Integers]:
    """Return start and shape, each (n, 2), of the first random crop that fits, else the central."""
    words = np.stack([_draw(seed, places, CROP_DRAWS + k) for k in range(ATTEMPTS)])
    least, most = crop.scale
    area = high * wide * (least + (most - least) * uniform(words[:, 0]))
    low, top = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    aspect = np.exp(low + (top - low) * uniform(words[:, 1]))
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= high)

    chosen = fits.argmax(0), np.arange(len(high))
    found = np.any(fits, 0, keepdims=True).T
    shape = np.stack([heights[chosen], widths[chosen]], 1)
    shape = np.where(found, shape, _central_shape(crop, high, wide))
    room = np.stack([high, wide], 1) - shape
    start = below(words[chosen[0], 2:, chosen[1]], room + 1)
    start = np.where(found, start, room // 2)
    return start, shape


def _central_shape(crop: RandomResizedCrop, high: Integers, wide: Integers) -> Integers:
    """Return the largest shape with an allowed aspect ratio: torchvision's fallback."""
    aspect = wide / high
    narrow, broad = aspect < crop.ratio[0], aspect > crop.ratio[1]
    width = np.where(broad, np.rint(high * crop.ratio[1]), wide)
    height = np.where(narrow, np.rint(wide / crop.ratio[0]), high)
    return np.maximum(np.stack([height, width], 1).astype(np.int64), 1)
