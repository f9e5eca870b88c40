"""The numerics of a step: precision, loss scale, gradient clipping, running statistics.

All engines share them, and none of them makes the host wait for the device.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from pipeline.config.schema import Precision

AUTOCAST_DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

INITIAL_SCALE = 2.0**16
GROWTH, BACKOFF = 2.0, 0.5
STEPS_BETWEEN_GROWTH = 2000

BatchNorm = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]

Sum = Callable[[torch.Tensor], torch.Tensor]
"""Adds up a tensor in place over the ranks, where each rank has a part of the gradients."""


class Autocast(nn.Module):
    """Runs `module` under autocast, on weights that stay fp32: an engine around it sees fp32."""

    def __init__(
        self, module: nn.Module, precision: Literal["auto", Precision], device: torch.device
    ) -> None:
        assert precision != "auto", "it is decided before an engine is built"
        super().__init__()
        self.module = module
        self._dtype, self._device_type = AUTOCAST_DTYPES[precision], device.type

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of `images` in fp32."""
        enabled = self._dtype != torch.float32
        with torch.autocast(self._device_type, self._dtype, enabled=enabled):
            return self.module(images).float()


class LossScale:
    """fp16's loss scale: it keeps small gradients from vanishing (Micikevicius et al. 2018).

    It works like `torch.amp.GradScaler`, but gradients may be partitioned over the ranks:
    all ranks then skip a step together. `optimizer` must skip a step where its `found_inf` is 1,
    as PyTorch's fused optimisers do.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._scale = torch.full((), INITIAL_SCALE, device=device)
        self._tracker = torch.zeros((), dtype=torch.int32, device=device)
        self._overflow = torch.zeros((), device=device)
        for group in optimizer.param_groups:
            group.update(fused=True, foreach=False)  # the only kernel that can skip a step
        optimizer.found_inf = self._overflow  # pyright: ignore[reportAttributeAccessIssue]

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self._scale

    @torch.no_grad()
    def unscale_(self, gradients: Sequence[torch.Tensor], sum_: Sum) -> None:
        """Divide `gradients` by the scale, in place; record whether any rank's overflowed."""
        self._overflow.zero_()
        inverse = self._scale.double().reciprocal().float()
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), self._overflow, inverse)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        sum_(self._overflow).clamp_(max=1)  # optimisers skip a step only where it is exactly 1

    def update(self) -> None:
        """Halve the scale if the step overflowed; double it after many that did not."""
        torch._amp_update_scale_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            self._scale, self._tracker, self._overflow, GROWTH, BACKOFF, STEPS_BETWEEN_GROWTH
        )

    def state(self) -> dict[str, float]:
        """Return the scale, and the steps since it last changed."""
        return {"scale": self._scale.item(), "steps": self._tracker.item()}

    def load(self, state: dict[str, float]) -> None:
        """Load a saved state; an empty one, from another precision, changes nothing."""
        if state:
            self._scale.fill_(state["scale"])
            self._tracker.fill_(int(state["steps"]))


@torch.no_grad()
def clip_(gradients: Sequence[torch.Tensor], clip_norm: float, sum_: Sum) -> None:
    """Scale `gradients` down, in place, to the global norm `clip_norm` if theirs is larger.

    The formula is the one in `torch.nn.utils.clip_grad_norm_`. Squares are summed in fp64: rounded
    to fp32, the result is the same however the gradients are partitioned.
    """
    norms = torch._foreach_norm(list(gradients), 2, torch.float64)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    norm = sum_(torch.stack(norms).square().sum()).sqrt()
    scale = (clip_norm / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_(list(gradients), scale.float())  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


class RunningStatistics:
    """Makes k micro batches move batch norm's running statistics as far as one batch would."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [
            (module, module.momentum)
            for module in network.modules()
            if isinstance(module, BatchNorm) and module.momentum is not None
        ]

    def take_share(self, number: int, count: int) -> None:
        """Prepare for micro batch `number` of `count`, numbered from 1.

        With the momentum m / (count (1 - m) + number m), `count` updates in a row equal a single
        update with momentum m by the mean over the micro batches.
        """
        if count > 1:
            for module, momentum in self._norms:
                module.momentum = momentum / (count * (1 - momentum) + number * momentum)
