"""The state of any optimiser is slots, which can be saved and loaded."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from pipeline.config.schema import Sgd
from pipeline.optim.build import build_optimizer
from pipeline.optim.slots import Slots, load_slots, optimizer_slots

OPTIMIZERS = {"sgd": SGD, "adamw": AdamW}
SETTINGS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adamw": {}}


def step(network: nn.Module, optimizer: Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def trained(kind: str, steps: int) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[kind](network.parameters(), lr=0.1, **SETTINGS[kind])
    for number in range(steps):
        step(network, optimizer, number)
    return network, optimizer


def copied(slots: Slots) -> Slots:
    return {
        slot: {name: each.clone() for name, each in tensors.items()}
        for slot, tensors in slots.items()
    }


@pytest.mark.parametrize(
    ("kind", "names"),
    [("sgd", {"momentum_buffer"}), ("adamw", {"step", "exp_avg", "exp_avg_sq"})],
)
def test_a_loaded_optimiser_takes_the_same_step(kind: str, names: set[str]) -> None:
    network, optimizer = trained(kind, 3)
    slots = copied(optimizer_slots(optimizer, network))
    assert slots.keys() == names
    assert all(tensors.keys() == {"weight", "bias"} for tensors in slots.values())
    other, loaded = trained(kind, 1)
    other.load_state_dict(network.state_dict())
    load_slots(loaded, other, slots)
    step(network, optimizer, 9)
    step(other, loaded, 9)
    for name, weight in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_slots_exist_before_the_first_step_and_no_step_adds_one(momentum: float) -> None:
    network = nn.Linear(3, 2)
    optimizer = build_optimizer(network, Sgd(lr=1, momentum=momentum, nesterov=False))
    before = copied(optimizer_slots(optimizer, network))
    step(network, optimizer, 0)
    assert before.keys() == optimizer_slots(optimizer, network).keys() == {"momentum_buffer"}


def test_state_that_cannot_be_saved_is_refused() -> None:
    network, optimizer = trained("sgd", 1)
    optimizer.state[network.weight]["count"] = 1
    with pytest.raises(AssertionError, match="count is not a tensor"):
        optimizer_slots(optimizer, network)
