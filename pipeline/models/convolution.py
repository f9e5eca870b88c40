"""The convolution of the networks that are written here: no bias, "same" padding, He's weights."""

from torch import nn


def convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a square convolution with weights of deviation sqrt(2 / (kernel^2 * outputs)).

    This is He et al. 2015 (1502.01852), eq. 14. Fan-out keeps the size of the gradient rather than
    of the signal, which batch norm looks after; the authors' own ResNet code and torchvision do so.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
