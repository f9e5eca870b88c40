"""Pre-activation ResNets for ImageNet (He et al. 2016, arXiv 1603.05027): BN, ReLU, convolution.

Nothing but sums lies on the shortcut of a unit that keeps its shape, so the signal and the gradient
pass through a stage unchanged. The stride of a bottleneck sits on its 3x3 convolution ("v1.5",
as torchvision does it).
"""

from itertools import accumulate

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.batch_norm import NormLayer
from pipeline.models.convolution import convolution

STAGE_UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
BASIC_DEPTHS = (18, 34)
STAGE_WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
"""Output channels of a bottleneck for each channel of its 3x3 convolution."""


class Unit(nn.Module):
    """A residual unit: the input plus a branch of pre-activated convolutions."""

    def __init__(
        self, convs: list[nn.Conv2d], stride: int, norm: NormLayer, *, activated: bool
    ) -> None:
        """`activated`: the input comes with batch norm and ReLU done, as from the stem."""
        super().__init__()
        inputs, self.outputs = convs[0].in_channels, convs[-1].out_channels
        self.bn1 = None if activated else norm(inputs)
        self.branch = nn.Sequential()
        for number, conv in enumerate(convs, 1):
            if number > 1:
                self.branch.add_module(f"bn{number}", norm(conv.in_channels))
                self.branch.add_module(f"relu{number}", nn.ReLU(inplace=True))
            self.branch.add_module(f"conv{number}", conv)
        self.projection = None
        if stride != 1 or inputs != self.outputs:
            self.projection = convolution(inputs, self.outputs, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        active = x if self.bn1 is None else F.relu(self.bn1(x), inplace=True)
        # A projection shares the branch's activation (appendix), and so needs no batch norm.
        shortcut = x if self.projection is None else self.projection(active)
        return shortcut + self.branch(active)

    def start_at_zero(self) -> None:
        """Zero the branch's last convolution, so that the unit begins as its shortcut.

        Zeroing the last batch norm instead would be for ever: the ReLU behind it would see 0, give
        0 to the convolution and pass no gradient back to the batch norm.
        """
        nn.init.zeros_(self.branch[-1].get_parameter("weight"))


class PreactResNet(nn.Module):
    """Float images (n, 3, h, w) to (n, classes); the linear layer starts as torch's default."""

    def __init__(self, depth: int, *, classes: int, norm: NormLayer, zero_init_last: bool) -> None:
        super().__init__()
        units = _units(depth, norm)
        ends = list(accumulate(STAGE_UNITS[depth]))
        self.conv1 = convolution(3, STAGE_WIDTHS[0], kernel=7, stride=2)
        self.bn1 = norm(STAGE_WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(*units[: ends[0]])
        self.layer2 = nn.Sequential(*units[ends[0] : ends[1]])
        self.layer3 = nn.Sequential(*units[ends[1] : ends[2]])
        self.layer4 = nn.Sequential(*units[ends[2] :])
        self.bn2 = norm(units[-1].outputs)
        self.fc = nn.Linear(units[-1].outputs, classes)
        if zero_init_last:
            for unit in units:
                unit.start_at_zero()

    def forward(self, x: Tensor) -> Tensor:
        # The first unit's activation is done here, before the two paths part (appendix).
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.relu(self.bn2(x), inplace=True).mean((2, 3)))


def _units(depth: int, norm: NormLayer) -> list[Unit]:
    units: list[Unit] = []
    inputs = STAGE_WIDTHS[0]
    for stage, (width, count) in enumerate(zip(STAGE_WIDTHS, STAGE_UNITS[depth], strict=True)):
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            convs = _basic if depth in BASIC_DEPTHS else _bottleneck
            unit = Unit(convs(inputs, width, stride), stride, norm, activated=not units)
            units.append(unit)
            inputs = unit.outputs
    return units


def _basic(inputs: int, width: int, stride: int) -> list[nn.Conv2d]:
    return [
        convolution(inputs, width, kernel=3, stride=stride),
        convolution(width, width, kernel=3),
    ]


def _bottleneck(inputs: int, width: int, stride: int) -> list[nn.Conv2d]:
    return [
        convolution(inputs, width, kernel=1),
        convolution(width, width, kernel=3, stride=stride),
        convolution(width, width * EXPANSION, kernel=1),
    ]
