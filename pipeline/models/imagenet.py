"""ResNets for ImageNet (He et al. 2015), which are torchvision's: anyone can load their weights.

These are "v1.5": the stride of a bottleneck sits on its 3x3 convolution, not on the first 1x1 as in
the paper, for about 0.5% less top-1 error at 5% more time.
"""

from torch import nn
from torchvision import models

from pipeline.models.batch_norm import NormLayer

CONSTRUCTORS = {
    18: models.resnet18,
    34: models.resnet34,
    50: models.resnet50,
    101: models.resnet101,
    152: models.resnet152,
}


def resnet(depth: int, *, classes: int, norm: NormLayer, zero_init_last: bool) -> nn.Module:
    """Return torchvision's ResNet of `depth` layers, with its own He initialisation (fan-out)."""
    return CONSTRUCTORS[depth](
        num_classes=classes, norm_layer=norm, zero_init_residual=zero_init_last
    )
