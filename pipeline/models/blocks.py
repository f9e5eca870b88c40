"""Residual blocks: a branch of two or three convolutions, and its sum with a shortcut.

`PostActivation` is the block of He et al. 2015 (arXiv 1512.03385), `PreActivation` that of He et
al. 2016 (arXiv 1603.05027). Names of layers are part of every checkpoint: do not change them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.batch_norm import NormLayer

Branch = Literal["basic", "bottleneck"]
EXPANSION: dict[Branch, int] = {"basic": 1, "bottleneck": 4}
"""Output channels of a branch for each channel of its 3x3 convolutions (He et al. 2015, fig. 5)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A block's input channels, channels of its 3x3 convolutions, output channels and stride."""

    inputs: int
    width: int
    outputs: int
    stride: int

    @property
    def is_kept(self) -> bool:
        """Whether the output has the shape of the input, so that the shortcut is the identity."""
        return self.stride == 1 and self.inputs == self.outputs


def convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a square convolution without bias, padded to keep the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def convolutions(branch: Branch, shape: Shape) -> list[nn.Conv2d]:
    """Return the convolutions of a branch (He et al. 2015, fig. 5).

    The stride of a bottleneck is on its 3x3 convolution, as in torchvision ("v1.5"), and not on the
    first 1x1 as in the paper: about 0.5 % less top-1 error for 5 % more time.
    """
    width = shape.width
    match branch:
        case "basic":
            return [
                convolution(shape.inputs, width, kernel=3, stride=shape.stride),
                convolution(width, shape.outputs, kernel=3),
            ]
        case "bottleneck":
            return [
                convolution(shape.inputs, width, kernel=1),
                convolution(width, width, kernel=3, stride=shape.stride),
                convolution(width, shape.outputs, kernel=1),
            ]


class PostActivation(nn.Module):
    """Convolutions, each followed by batch norm; ReLU between them and after the sum.

    Layers have torchvision's names. Without `shortcut` the block is plain: it has no sum.
    """

    def __init__(
        self, convs: Sequence[nn.Conv2d], norm: NormLayer, shortcut: nn.Module | None
    ) -> None:
        super().__init__()
        first, second, *third = convs
        self.conv1 = first
        self.bn1 = norm(first.out_channels)
        self.conv2 = second
        self.bn2 = norm(second.out_channels)
        self.conv3 = third[0] if third else None
        self.bn3 = norm(third[0].out_channels) if third else None
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.conv3 is not None and self.bn3 is not None:
            out = self.bn3(self.conv3(F.relu(out, inplace=True)))
        if self.downsample is not None:
            out += self.downsample(x)
        return F.relu(out, inplace=True)

    def start_at_zero(self) -> None:
        """Zero the last batch norm, so that the block starts as its shortcut.

        A plain block is left alone: without a shortcut, a layer of zeros lets nothing through.
        """
        if self.downsample is not None:
            last = self.bn2 if self.bn3 is None else self.bn3
            nn.init.zeros_(last.get_parameter("weight"))


class PreActivation(nn.Module):
    """Convolutions, each preceded by batch norm and ReLU; nothing follows the sum.

    A block that keeps its shape only adds to its input, so the signal and
    the gradient pass through a stage unchanged. A projection shares the branch's first activation
    (appendix), and so needs no batch norm.
    """

    def __init__(
        self,
        convs: Sequence[nn.Conv2d],
        norm: NormLayer,
        projection: nn.Module | None,
        *,
        activated: bool,
    ) -> None:
        """`activated`: the input has had its batch norm and ReLU, as the stem's output has."""
        super().__init__()
        self.bn1 = None if activated else norm(convs[0].in_channels)
        self.branch = nn.Sequential()
        for number, conv in enumerate(convs, 1):
            if number > 1:
                self.branch.add_module(f"bn{number}", norm(conv.in_channels))
                self.branch.add_module(f"relu{number}", nn.ReLU(inplace=True))
            self.branch.add_module(f"conv{number}", conv)
        self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        active = x if self.bn1 is None else F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.projection is None else self.projection(active)
        return shortcut + self.branch(active)

    def start_at_zero(self) -> None:
        """Zero the last convolution, so that the block starts as its shortcut.

        Zeroing the last batch norm instead would be permanent: the ReLU behind it gets 0 and passes
        no gradient back, and the convolution behind that gets 0 and has no gradient either.
        """
        nn.init.zeros_(self.branch[-1].get_parameter("weight"))
