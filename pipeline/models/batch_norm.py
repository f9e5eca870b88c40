"""Batch norm whose groups have a fixed number of images ("ghost" batch norm, Hoffer et al. 2017).

With it the result of a training step depends on the global batch and not on the number of ranks.
Parameters and buffers have the names of `nn.BatchNorm2d`, so checkpoints fit both.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]
"""Returns a batch norm layer for a number of channels."""


class GroupBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that normalises every `group` consecutive images separately.

    The running statistics move by `momentum` towards the averages of the groups' means and unbiased
    variances. In evaluation it is the same as `nn.BatchNorm2d`.
    """

    def __init__(
        self, num_features: int, *, group: int, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.group = group

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name for it)
        """Normalise (n, channels, h, w). Raises `ValueError` in training if n % group != 0."""
        if not self.training or len(input) == self.group:
            return super().forward(input)
        if len(input) % self.group:
            raise ValueError(_misfit(len(input), self.group))
        assert self.momentum is not None, "a cumulative average is not supported"
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        groups = torch.split(input, self.group)
        rates = _equal_shares(self.momentum, len(groups))
        return torch.cat([self._normalise(*pair) for pair in zip(groups, rates, strict=True)])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, group={self.group}"

    def _normalise(self, images: Tensor, rate: float) -> Tensor:
        return F.batch_norm(
            images,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=True,
            momentum=rate,
            eps=self.eps,
        )


def norm_layer(group: int | None) -> NormLayer:
    """Return a maker of batch norm layers over `group` images, or the whole batch if None."""
    return nn.BatchNorm2d if group is None else partial(GroupBatchNorm2d, group=group)


def _equal_shares(momentum: float, groups: int) -> list[float]:
    """Return the momentum of each of `groups` updates that together equal one by the groups' mean.

    Number i of G is m / (G - (G - i) m): the result has a share of m / G of each group and 1 - m of
    the old value. So torch's own kernels update in place, without extra memory or another pass.
    """
    return [momentum / (groups - later * momentum) for later in reversed(range(groups))]


def _misfit(images: int, group: int) -> str:
    return (
        f"model.batch_norm_group={group} does not divide a rank's micro batch of {images} images; "
        f"try model.batch_norm_group={math.gcd(images, group)}"
    )
