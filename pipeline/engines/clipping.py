"""Gradient clipping by the global norm (Pascanu et al. 2013)."""

from collections.abc import Callable, Sequence

import torch


@torch.no_grad()
def clip_(
    gradients: Sequence[torch.Tensor],
    clip_norm: float,
    sum_: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Scale `gradients` down, in place, to the norm `clip_norm` if theirs is larger.

    `sum_` adds up, in place, the squares that ranks have in their parts of the gradients. They are
    summed in fp64: rounded to fp32 the result is the same however the gradients are cut up.
    The formula is that of `torch.nn.utils.clip_grad_norm_`; the host is not asked.
    """
    norms = torch._foreach_norm(list(gradients), 2, torch.float64)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    norm = sum_(torch.stack(norms).square().sum()).sqrt()
    scale = (clip_norm / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_(list(gradients), scale.float())  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
