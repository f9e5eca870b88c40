"""The weights that a network starts with, drawn from torch's default random generator."""

from collections.abc import Iterable
from typing import Literal

from torch import nn

from pipeline.models.network import ResidualNetwork

DrawOrder = Literal["torchvision", "in_turn", "stem_last"]
"""The order decides which weights a seed gives, so that of a family never changes.

`torchvision`: all layers get torch's default weights, then all convolutions get He's. `in_turn`:
each convolution gets He's weights right after its default ones. `stem_last`: in turn, too, but the
stem comes after the stages.
"""


def draw_weights(network: ResidualNetwork, order: DrawOrder) -> None:
    """Fill all parameters and buffers of `network`, whatever they hold.

    Convolutions get He's normal weights and the linear layer torch's default; batch norm starts
    with weight 1, bias 0, mean 0 and variance 1.
    """
    stem, *rest, head = network.children()
    parts = (*rest, stem, head) if order == "stem_last" else (stem, *rest, head)
    layers = [layer for part in parts for layer in part.modules()]
    for drawn_together in [layers] if order == "torchvision" else [[layer] for layer in layers]:
        _set_to_default(drawn_together)
        _draw_convolutions(drawn_together)


def _set_to_default(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            layer.reset_parameters()
        else:
            tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
            assert not tensors, f"{layer} has tensors without initial values"


def _draw_convolutions(layers: Iterable[nn.Module]) -> None:
    """Draw weights of deviation sqrt(2 / (kernel^2 * outputs)): He et al. 2015, 1502.01852, eq. 14.

    Fan-out keeps the size of the gradient; batch norm keeps that of the signal. The authors' code
    for ResNets and torchvision do the same.
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
