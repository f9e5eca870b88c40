"""The catalogue of networks: a configured `Model` in, a network with its first weights out."""

import torch
from torch import nn

from pipeline.config.schema import Model
from pipeline.models.batch_norm import norm_layer


def build(model: Model, *, classes: int, generator_seed: int) -> nn.Module:
    """Return the network that `model` describes, for float images (n, 3, h, w), in training mode.

    Its weights are a pure function of (model, classes, generator_seed), and the caller's random
    state is left as it was. Under `torch.device("meta")` it has shapes only.
    """
    norm = norm_layer(model.batch_norm_group)
    depth, zero = model.architecture.depth, model.zero_init_last
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed the caller's GPUs as well.
        torch.default_generator.manual_seed(generator_seed)
        match model.architecture.family:
            case "resnet":
                from pipeline.models.imagenet import resnet

                return resnet(depth, classes=classes, norm=norm, zero_init_last=zero)
            case "preact_resnet":
                from pipeline.models.preact import PreactResNet

                return PreactResNet(depth, classes=classes, norm=norm, zero_init_last=zero)
            case "cifar_resnet":
                from pipeline.models.cifar import cifar_resnet

                return cifar_resnet(depth, classes=classes, norm=norm, zero_init_last=zero)
            case "cifar_plain":
                # zero_init_last does not apply: where there is no shortcut, a layer that starts at
                # zero lets nothing through.
                from pipeline.models.cifar import cifar_plain

                return cifar_plain(depth, classes=classes, norm=norm)


def count_parameters(module: nn.Module) -> int:
    """Number of weights of `module`, without its buffers (batch norm's running statistics)."""
    return sum(parameter.numel() for parameter in module.parameters())
