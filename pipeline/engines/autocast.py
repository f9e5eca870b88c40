"""The precision that a network computes in; its weights stay in fp32 throughout."""

from typing import Literal

import torch
from torch import nn

AUTOCAST_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Autocast(nn.Module):
    """Runs `module` under autocast: whatever an engine wraps around it sees fp32 only."""

    def __init__(
        self, module: nn.Module, precision: Literal["fp32", "bf16", "fp16"], device: torch.device
    ) -> None:
        super().__init__()
        self.module = module
        self._dtype, self._device_type = AUTOCAST_DTYPES[precision], device.type

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of `images` in fp32."""
        enabled = self._dtype != torch.float32
        with torch.autocast(self._device_type, self._dtype, enabled=enabled):
            return self.module(images).float()
