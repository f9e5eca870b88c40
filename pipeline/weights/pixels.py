"""An image as evaluation sees it, with Pillow and torch alone: no dataset and no loader."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.schema import ResizeCenterCrop


def evaluation_pixels(image: Image.Image, view: ResizeCenterCrop) -> Tensor:
    """Return the central square of the resized image, RGB, uint8 (view.size, view.size, 3).

    The shorter side is resized to `view.resize`. The orientation in EXIF is ignored, as in training
    and evaluation.
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    shorter = min(image.size)
    sides = [view.resize * side // shorter for side in (image.height, image.width)]
    resized = F.interpolate(pixels[None], sides, mode=view.interpolation, antialias=True)[0]
    top, left = (round((side - view.size) / 2) for side in sides)
    square = resized[:, top : top + view.size, left : left + view.size]
    return square.permute(1, 2, 0).contiguous()
