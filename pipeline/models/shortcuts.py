"""What a block adds to its branch: the input itself, or something of the output's shape.

Options A and B are those of He et al. 2015 (arXiv 1512.03385), sec. 3.3 and 4.1. Both take the
input itself where the shape is kept.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.batch_norm import NormLayer
from pipeline.models.blocks import Shape, convolution

Shortcut = Literal["padding", "projection", "none"]
"""Option A, option B, or no shortcut: a plain network."""


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and `channels` more channels of zeros; no parameters."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


def post_activation_shortcut(kind: Shortcut, shape: Shape, norm: NormLayer) -> nn.Module | None:
    """Return the shortcut of a post-activation block; None means no shortcut."""
    match kind:
        case "none":
            return None
        case "padding" | "projection" if shape.is_kept:
            return nn.Identity()
        case "padding":
            return PadShortcut(shape.outputs - shape.inputs, shape.stride)
        case "projection":
            return nn.Sequential(_projection(shape), norm(shape.outputs))


def pre_activation_projection(shape: Shape) -> nn.Module | None:
    """Return the projection of a pre-activation block; None is the input itself."""
    return None if shape.is_kept else _projection(shape)


def _projection(shape: Shape) -> nn.Conv2d:
    return convolution(shape.inputs, shape.outputs, kernel=1, stride=shape.stride)
