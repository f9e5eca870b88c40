"""Batch norm's running statistics, recomputed for weights that no training step has seen."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.models.input import Normalized


@torch.no_grad()
def recompute_statistics(
    network: nn.Module,
    batches: Iterable[torch.Tensor],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    group: int,
) -> int:
    """Replace the statistics of `network` by those of `batches`; return how many batches came.

    Each statistic is the mean over equal parts, of at most `group` images, of batches of uint8
    (n, h, w, 3). The network is in evaluation mode afterwards. `mean` and `std` are on a scale of
    0 to 1.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over everything seen
    module = Normalized(network, mean=mean, std=std).train()
    seen = 0
    for images in batches:
        for part in images.tensor_split(math.ceil(len(images) / group)):
            module(part)
        seen += 1
    network.eval()
    return seen
