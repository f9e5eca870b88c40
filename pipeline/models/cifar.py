"""Residual and plain networks of 6n+2 layers for small images (He et al. 2015, sec. 4.2).

A 3x3 convolution to 16 channels, then three stages of 2n 3x3 convolutions with 16, 32 and 64
channels, of which the first of stages two and three halves the image; average pooling; one linear
layer. The two kinds have the same parameters: they differ in nothing but the shortcuts.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.batch_norm import NormLayer
from pipeline.models.convolution import convolution

Shape = tuple[int, int, int]
"""A unit's input channels, output channels and stride."""
ShortcutLayer = Callable[[Shape], nn.Module]
"""Makes the shortcut of a unit."""


class PadShortcut(nn.Module):
    """Option A: take every `stride`-th pixel and append `channels` that are zero; no parameters."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


class Unit(nn.Module):
    """Two 3x3 convolutions with batch norm, and the sum with a shortcut if there is one."""

    def __init__(self, shape: Shape, norm: NormLayer, shortcut: nn.Module | None) -> None:
        super().__init__()
        inputs, outputs, stride = shape
        self.conv1 = convolution(inputs, outputs, kernel=3, stride=stride)
        self.bn1 = norm(outputs)
        self.conv2 = convolution(outputs, outputs, kernel=3)
        self.bn2 = norm(outputs)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out, inplace=True)


class CifarNet(nn.Module):
    """Float images (n, 3, h, w) of at least 4x4 pixels (the paper: 32x32) to (n, classes)."""

    def __init__(
        self, depth: int, *, classes: int, norm: NormLayer, shortcut: ShortcutLayer | None
    ) -> None:
        super().__init__()
        assert depth % 6 == 2, f"depth {depth} is not 6n+2"
        units = (depth - 2) // 6
        self.conv1 = convolution(3, 16, kernel=3)
        self.bn1 = norm(16)
        self.layer1 = _stage([(16, 16, 1)] * units, norm, shortcut)
        self.layer2 = _stage([(16, 32, 2)] + [(32, 32, 1)] * (units - 1), norm, shortcut)
        self.layer3 = _stage([(32, 64, 2)] + [(64, 64, 1)] * (units - 1), norm, shortcut)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def cifar_resnet(depth: int, *, classes: int, norm: NormLayer, zero_init_last: bool) -> CifarNet:
    """Return the residual network of `depth` layers with parameter-free shortcuts (option A)."""
    network = CifarNet(depth, classes=classes, norm=norm, shortcut=_option_a)
    for module in network.modules():
        if zero_init_last and isinstance(module, Unit):
            nn.init.zeros_(module.bn2.get_parameter("weight"))
    return network


def cifar_plain(depth: int, *, classes: int, norm: NormLayer) -> CifarNet:
    """Return the plain network of `depth` layers: the residual one without its shortcuts."""
    return CifarNet(depth, classes=classes, norm=norm, shortcut=None)


def _option_a(shape: Shape) -> nn.Module:
    inputs, outputs, stride = shape
    same = inputs == outputs and stride == 1
    return nn.Identity() if same else PadShortcut(outputs - inputs, stride)


def _stage(shapes: list[Shape], norm: NormLayer, shortcut: ShortcutLayer | None) -> nn.Sequential:
    return nn.Sequential(
        *(Unit(shape, norm, shortcut(shape) if shortcut else None) for shape in shapes)
    )
