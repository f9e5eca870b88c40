"""The state of any optimiser as slots: SGD has `momentum_buffer`, Adam `exp_avg`, `step` ..."""

import torch
from torch import nn
from torch.optim import Optimizer

Slots = dict[str, dict[str, torch.Tensor]]
"""Slot to parameter name to tensor.

Each tensor has the shape of its parameter, or is a scalar (0-d), such as Adam's `step`.
"""


def optimizer_slots(optimizer: Optimizer, network: nn.Module) -> Slots:
    """Return the live state that `optimizer` keeps for the parameters of `network`."""
    slots: Slots = {}
    for name, parameter in network.named_parameters():
        for slot, tensor in optimizer.state.get(parameter, {}).items():
            assert isinstance(tensor, torch.Tensor), f"{slot} is not a tensor: it cannot be saved"
            slots.setdefault(slot, {})[name] = tensor
    return slots


@torch.no_grad()
def load_slots(optimizer: Optimizer, network: nn.Module, saved: Slots) -> None:
    """Copy saved slots into the state of `optimizer`, which has the same slots already."""
    for slot, tensors in optimizer_slots(optimizer, network).items():
        for name, tensor in tensors.items():
            tensor.copy_(saved[slot][name])
