"""Networks by name, and random input for them."""

from typing import Any

import torch
from torch import Tensor

from pipeline.config.schema import model_named
from pipeline.models import build
from pipeline.models.blocks import PostActivation, PreActivation
from pipeline.models.network import ResidualNetwork

SMALL = ["resnet18", "preact_resnet18", "preact_resnet50", "cifar_resnet20", "cifar_plain20"]
"""A network of each family, with blocks of each kind."""


def make(name: str, *, classes: int = 10, seed: int = 0, **settings: Any) -> ResidualNetwork:
    return build(model_named(name, **settings), classes=classes, generator_seed=seed)


def outline(name: str, *, classes: int) -> ResidualNetwork:
    """The network on the meta device: drawing weights is slow."""
    with torch.device("meta"):
        return make(name, classes=classes)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def blocks_of(network: ResidualNetwork) -> list[Any]:
    """The residual blocks, in the order in which an image passes them."""
    return [m for m in network.modules() if isinstance(m, PostActivation | PreActivation)]
