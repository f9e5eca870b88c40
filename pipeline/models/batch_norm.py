"""Batch norm whose groups have a fixed number of images ("ghost" batch norm, Hoffer et al. 2017).

With it the result of a training step depends on the global batch and not on how many ranks share
it. The names of parameters and buffers are those of `nn.BatchNorm2d`, and so are the checkpoints.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]
"""Makes the batch norm of a number of channels."""


class GroupBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` in which each `group` consecutive images are normalised by themselves.

    The running statistics move by `momentum` to the mean, over the groups of the batch, of the
    groups' means and unbiased variances. Evaluation is that of `nn.BatchNorm2d`.
    """

    def __init__(
        self, num_features: int, *, group: int, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.group = group

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name for it)
        """Normalise (n, channels, h, w); in training `ValueError` unless `group` divides n."""
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
    """Return the maker of batch norms over `group` images each, or over whatever comes if None."""
    return nn.BatchNorm2d if group is None else partial(GroupBatchNorm2d, group=group)


def _equal_shares(momentum: float, groups: int) -> list[float]:
    """Rates of `groups` updates in a row that end where one update by the groups' mean would.

    Rate i of G is m / (G - (G - i) m): then each group's share of the outcome is m / G, and that of
    the old value 1 - m. So torch's own kernels update in place, with no scratch and no other pass.
    """
    return [momentum / (groups - later * momentum) for later in reversed(range(groups))]


def _misfit(images: int, group: int) -> str:
    return (
        f"model.batch_norm_group={group} does not divide a rank's micro batch of {images} images; "
        f"try model.batch_norm_group={math.gcd(images, group)}"
    )
