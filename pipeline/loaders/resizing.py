"""Resizing on the CPU, from decoded images into the batch: with torch, or exactly as Pillow does.

Training uses torch's antialiased filters: their pixels differ from Pillow's by a level or two of
255, and they take a third of its time. Evaluation uses Pillow itself, so its pixels are exactly
those of torchvision's transforms, with which published errors were measured.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.augment.crops import Integers

Interpolation = Literal["bilinear", "bicubic"]

TORCH_FILTERS: dict[Interpolation, Any] = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
}
"""The operators behind torchvision's `resize(tensor, antialias=True)`."""


class Resizer:
    """Resizes, crops and flips the images of a batch, in threads of its own.

    An image is finished by one thread, so the pixels do not depend on the number of threads.
    """

    def __init__(
        self,
        *,
        size: int,
        interpolation: Interpolation,
        exact: bool,
        fill: tuple[float, float, float],
        threads: int,
    ) -> None:
        """`size` is the side of the finished square; `exact` resizes with Pillow.

        `fill` is the colour outside an image.
        """
        self._size, self._exact = size, exact
        self._interpolation: Interpolation = interpolation
        self._fill = torch.tensor(fill).to(torch.uint8)
        self._pool, self._threads = ThreadPoolExecutor(threads), threads

    def __call__(self, images: Sequence[Tensor], geometry: dict[str, Integers]) -> Tensor:
        """Return a batch, uint8 (n, size, size, 3), of images, uint8 (height, width, 3) each.

        `geometry` has the arrays of `Views` from `resized` on.
        """
        batch = torch.empty(len(images), self._size, self._size, 3, dtype=torch.uint8)
        places = {name: array.tolist() for name, array in geometry.items()}

        def finish(rows: range) -> None:
            for row in rows:
                at = {name: values[row] for name, values in places.items()}
                self._finish(images[row], batch[row], **at)

        parts = (range(start, len(images), self._threads) for start in range(self._threads))
        for _ in self._pool.map(finish, parts):
            pass
        return batch

    def _finish(
        self,
        image: Tensor,
        square: Tensor,
        *,
        resized: list[int],
        crop_start: list[int] | None = None,
        flip: int = 0,
    ) -> None:
        """Write one finished image into its row of the batch."""
        if self._exact:
            whole = _resized_by_pillow(image, resized, self._interpolation)
        elif crop_start is None and not flip:  # one pass less
            _resized_by_torch(image, resized, TORCH_FILTERS[self._interpolation], square)
            return
        else:
            whole = torch.empty(*resized, 3, dtype=torch.uint8)
            _resized_by_torch(image, resized, TORCH_FILTERS[self._interpolation], whole)
        if crop_start is not None:
            whole = self._cropped(whole, *crop_start)
        if flip:
            whole = _planes(whole).flip(3)[0].permute(1, 2, 0)  # torch is fast in this layout
        square.copy_(whole)

    def _cropped(self, whole: Tensor, top: int, left: int) -> Tensor:
        """Return the square of (height, width, 3) at `top` and `left`, filled outside of it."""
        inside = whole[max(top, 0) : top + self._size, max(left, 0) : left + self._size]
        high, wide, _ = inside.shape
        if (high, wide) == (self._size, self._size):
            return inside
        square = self._fill.repeat(self._size, self._size, 1)
        above, before = max(-top, 0), max(-left, 0)
        square[above : above + high, before : before + wide] = inside
        return square


def _resized_by_torch(image: Tensor, size: list[int], resize: Any, into: Tensor) -> None:
    resize.out(_planes(image), size, False, None, None, out=_planes(into))


def _resized_by_pillow(image: Tensor, size: list[int], interpolation: Interpolation) -> Tensor:
    high, wide = size
    resample = Image.Resampling[interpolation.upper()]
    return torch.from_numpy(np.array(Image.fromarray(image.numpy()).resize((wide, high), resample)))


def _planes(image: Tensor) -> Tensor:
    """View (height, width, 3) as (1, 3, height, width), as torch's operators expect it."""
    return image.permute(2, 0, 1).unsqueeze(0)
