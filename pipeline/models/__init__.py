"""Networks: the section `model` of a configuration in, a network with its initial weights out."""

import torch
from torch import nn

from pipeline.config.schema import Model
from pipeline.models.batch_norm import norm_layer
from pipeline.models.catalogue import draw_order_of, layout_of, starts_at_zero
from pipeline.models.initial_weights import draw_weights
from pipeline.models.network import ResidualNetwork


def build(model: Model, *, classes: int, generator_seed: int) -> ResidualNetwork:
    """Return the network that `model` describes, for float images (n, 3, h, w), in training mode.

    Its weights are a pure function of (model, classes, generator_seed), and the caller's random
    state does not change. Under `torch.device("meta")` it has shapes only.
    """
    with torch.random.fork_rng(devices=[]):
        network = _undrawn(model, classes)
        # Not torch.manual_seed, which would reseed the caller's GPUs as well.
        torch.default_generator.manual_seed(generator_seed)
        draw_weights(network, draw_order_of(model))
    if starts_at_zero(model):
        network.start_at_zero()
    return network


def build_shapes(model: Model, *, classes: int) -> ResidualNetwork:
    """Return the network that `model` describes on the meta device: shapes without memory.

    No weights are drawn: on that device this would import torch's compiler, which takes seconds.
    """
    with torch.device("meta"):
        return _undrawn(model, classes)


def _undrawn(model: Model, classes: int) -> ResidualNetwork:
    norm = norm_layer(model.batch_norm_group)
    return ResidualNetwork(layout_of(model), classes=classes, norm=norm)


def count_parameters(module: nn.Module) -> int:
    """Number of weights of `module`, without its buffers (batch norm's running statistics)."""
    return sum(parameter.numel() for parameter in module.parameters())
