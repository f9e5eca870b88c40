"""The one network: a stem, stages of residual blocks, and a head. `Layout` says which of each.

A new kind of stem, block or shortcut is a new choice in `Layout`, not a new network.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.batch_norm import NormLayer
from pipeline.models.blocks import (
    EXPANSION,
    Branch,
    PostActivation,
    PreActivation,
    Shape,
    convolution,
    convolutions,
)
from pipeline.models.shortcuts import (
    Shortcut,
    post_activation_shortcut,
    pre_activation_projection,
)

Stem = Literal["imagenet", "cifar"]
Activation = Literal["post", "pre"]
"""Whether batch norm and ReLU follow a convolution (He et al. 2015) or precede it (2016)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a network is made of."""

    stem: Stem
    widths: tuple[int, ...]
    """Channels of the 3x3 convolutions in each stage; the stem has as many as the first stage."""
    blocks: tuple[int, ...]
    """Blocks in each stage. The first block of each stage but the first halves the image."""
    branch: Branch
    activation: Activation
    shortcut: Shortcut

    def __post_init__(self) -> None:
        assert len(self.widths) == len(self.blocks), f"{self}: each stage needs a width and blocks"
        assert self.activation == "post" or self.shortcut == "projection", (
            f"{self}: pre-activation needs projections"
        )

    def stages(self) -> list[list[Shape]]:
        """The shape of each block, stage by stage."""
        stages: list[list[Shape]] = []
        inputs = self.widths[0]
        for stage, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            outputs = width * EXPANSION[self.branch]
            first = Shape(inputs, width, outputs, stride=2 if stage else 1)
            stages.append([first, *[Shape(outputs, width, outputs, stride=1)] * (count - 1)])
            inputs = outputs
        return stages


class ResidualNetwork(nn.Module):
    """Float images (n, 3, h, w) to logits (n, classes).

    Layers have torchvision's names (conv1, bn1, layer1 ..., fc), which are part of every
    checkpoint; `bn2` is the last batch norm of a pre-activation network.
    """

    def __init__(self, layout: Layout, *, classes: int, norm: NormLayer) -> None:
        super().__init__()
        self.conv1, self.maxpool = _stem(layout.stem, layout.widths[0])
        self.bn1 = norm(layout.widths[0])
        stages = layout.stages()
        self.stage_names = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for stage, (name, shapes) in enumerate(zip(self.stage_names, stages, strict=True)):
            blocks = [
                _block(layout, shape, norm, is_first=stage == number == 0)
                for number, shape in enumerate(shapes)
            ]
            self.add_module(name, nn.Sequential(*blocks))
        channels = stages[-1][-1].outputs
        self.bn2 = norm(channels) if layout.activation == "pre" else None
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        # Also the first activation of a pre-activation network, which branch and shortcut of its
        # first block share (He et al. 2016, appendix).
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        if self.bn2 is not None:
            x = F.relu(self.bn2(x), inplace=True)
        return self.fc(x.mean((2, 3)))

    def start_at_zero(self) -> None:
        """Make each residual block start as its shortcut (Goyal et al. 2017, sec. 5.1)."""
        for module in self.modules():
            if isinstance(module, PostActivation | PreActivation):
                module.start_at_zero()


def _stem(stem: Stem, channels: int) -> tuple[nn.Conv2d, nn.Module]:
    """Return the first convolution, and the pooling that follows its batch norm and ReLU."""
    match stem:
        case "imagenet":  # He et al. 2015, table 1: from 224 to 56 pixels
            pool = nn.MaxPool2d(3, stride=2, padding=1)
            return convolution(3, channels, kernel=7, stride=2), pool
        case "cifar":  # He et al. 2015, sec. 4.2: 32 pixels stay 32
            return convolution(3, channels, kernel=3), nn.Identity()


def _block(
    layout: Layout, shape: Shape, norm: NormLayer, *, is_first: bool
) -> PostActivation | PreActivation:
    convs = convolutions(layout.branch, shape)
    match layout.activation:
        case "post":
            return PostActivation(
                convs, norm, post_activation_shortcut(layout.shortcut, shape, norm)
            )
        case "pre":
            projection = pre_activation_projection(shape)
            return PreActivation(convs, norm, projection, activated=is_first)
