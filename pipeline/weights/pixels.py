"""An image as evaluation sees it, with Pillow alone: no dataset and no loader."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.schema import ResizeCenterCrop


def evaluation_pixels(image: Image.Image, view: ResizeCenterCrop) -> Tensor:
    """Return the central square of the resized image, RGB, uint8 (view.size, view.size, 3).

    The shorter side is resized to `view.resize`. The orientation in EXIF is ignored, as in training
    and evaluation.
    """
    shorter = min(image.size)
    wide, high = (view.resize * side // shorter for side in image.size)
    resample = Image.Resampling[view.interpolation.upper()]
    resized = torch.from_numpy(np.array(image.convert("RGB").resize((wide, high), resample)))
    top, left = (round((side - view.size) / 2) for side in (high, wide))
    return resized[top : top + view.size, left : left + view.size].contiguous()
