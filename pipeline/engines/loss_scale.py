"""The loss scale of fp16, which keeps small gradients from vanishing (Micikevicius et al. 2018).

It is that of `torch.amp.GradScaler`, but knows of gradients that are cut up over the ranks: all
ranks then skip a step together. It never asks the host.
"""

from collections.abc import Callable, Sequence

import torch
from torch.optim import SGD

INITIAL = 2.0**16
GROWTH, BACKOFF = 2.0, 0.5
STEPS_BETWEEN_GROWTH = 2000


class LossScale:
    """Scales losses up and gradients down, and lets `optimizer` skip what overflowed."""

    def __init__(self, optimizer: SGD, device: torch.device) -> None:
        self._scale = torch.full((), INITIAL, device=device)
        self._tracker = torch.zeros((), dtype=torch.int32, device=device)
        self._overflow = torch.zeros((), device=device)
        for group in optimizer.param_groups:
            group.update(fused=True, foreach=False)  # the only kernel that can skip a step
        optimizer.found_inf = self._overflow  # pyright: ignore[reportAttributeAccessIssue]

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self._scale

    @torch.no_grad()
    def unscale_(
        self, gradients: Sequence[torch.Tensor], sum_: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """Divide `gradients` by the scale; `sum_` adds up, in place, what ranks find in theirs."""
        self._overflow.zero_()
        inverse = self._scale.double().reciprocal().float()
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), self._overflow, inverse)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        sum_(self._overflow).clamp_(max=1)  # the optimiser skips the step where it is just 1

    def update(self) -> None:
        """Halve the scale if the step overflowed; double it after many that did not."""
        torch._amp_update_scale_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            self._scale, self._tracker, self._overflow, GROWTH, BACKOFF, STEPS_BETWEEN_GROWTH
        )

    def state(self) -> dict[str, float]:
        """Return the scale, and the steps since it last changed."""
        return {"scale": self._scale.item(), "steps": self._tracker.item()}

    def load(self, state: dict[str, float]) -> None:
        """Take over a saved state; an empty one, of another precision, leaves all as it is."""
        if state:
            self._scale.fill_(state["scale"])
            self._tracker.fill_(int(state["steps"]))
