"""How ZeRO partitions parameters and the slots of an optimiser."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from pipeline.distributed.world import World
from pipeline.engines.partition import ParameterPartition
from pipeline.optim.slots import optimizer_slots

ALONE = World()
SHAPES = ((3, 2, 2), (5,), (), (1, 7))


def some(*shapes: tuple[int, ...], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors by name."""
    generator = torch.Generator().manual_seed(seed)
    return {f"p{at}": torch.randn(each, generator=generator) for at, each in enumerate(shapes)}


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def partitions(tensors: Mapping[str, Tensor], size: int) -> list[ParameterPartition]:
    """The partition of each of `size` ranks."""
    own = nn.Parameter(torch.zeros(-(-flat(tensors).numel() // size)))
    return [ParameterPartition(tensors, own, World(rank, size)) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_make_up_the_whole(size: int) -> None:
    tensors = some(*SHAPES)
    parts = [partition.cut(tensors) for partition in partitions(tensors, size)]
    total = flat(tensors).numel()
    assert {part.shape for part in parts} == {(-(-total // size),)}
    assert torch.equal(torch.cat(parts)[:total], flat(tensors))
    assert not torch.cat(parts)[total:].any(), "padding is zero"


def test_gather_inverts_cut() -> None:
    tensors = some(*SHAPES)
    partition = ParameterPartition(tensors, nn.Parameter(torch.zeros(30)), ALONE)
    gathered = partition.gather(partition.cut(tensors))
    assert gathered.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert gathered[name].shape == tensor.shape
        assert torch.equal(gathered[name], tensor)


def test_channels_last_tensors_are_cut_in_the_order_of_their_indices() -> None:
    plain = some((2, 3, 4, 5))
    strided = {"p0": plain["p0"].to(memory_format=torch.channels_last)}
    partition = ParameterPartition(plain, nn.Parameter(torch.zeros(120)), ALONE)
    assert torch.equal(partition.cut(strided), partition.cut(plain))


# ---------------------------------------------------------------------------- slots of optimisers


@dataclass
class Meeting:
    """Stands in for collectives: adds up the tensors that the ranks bring, one after another."""

    ranks: int
    brought: list[Tensor] = field(default_factory=list[Tensor])

    def world(self, rank: int) -> World:
        meeting = self

        class Meet(World):
            def all_reduce_sum_(self, tensor: Tensor) -> Tensor:
                meeting.brought.append(tensor.clone())
                return tensor.copy_(sum(meeting.brought))  # complete for the last rank

        return Meet(rank, self.ranks)


def trained_adamw(parameters: dict[str, nn.Parameter], steps: int) -> AdamW:
    optimizer = AdamW(parameters.values(), lr=0.1, foreach=True)
    for step in range(steps):
        for name, gradient in some(*SHAPES, seed=step).items():
            parameters[name].grad = gradient
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("size", [1, 2, 3])
def test_slots_of_adamw_are_cut_and_gathered(size: int) -> None:
    """`exp_avg` and `exp_avg_sq` have the parameters' shapes, and `step` is a scalar."""
    network = nn.ParameterDict(some(*SHAPES))
    slots = optimizer_slots(trained_adamw(dict(network.named_parameters()), 3), network)
    assert slots.keys() == {"step", "exp_avg", "exp_avg_sq"}
    cuts = partitions(dict(network.named_parameters()), size)
    for slot, tensors in slots.items():
        meeting = Meeting(size)
        for rank, cut in enumerate(cuts):
            part = cut.cut_slot(tensors)
            assert part.shape == (() if slot == "step" else cut.own.shape)
            own = nn.Parameter(torch.zeros_like(cut.own))
            gathered = ParameterPartition(
                dict(network.named_parameters()), own, meeting.world(rank)
            ).gather_slot(part)
        assert gathered.keys() == tensors.keys()
        assert all(torch.equal(gathered[name], tensor) for name, tensor in tensors.items())


def test_steps_that_differ_within_a_group_are_refused() -> None:
    partition = ParameterPartition(some((2,), (3,)), nn.Parameter(torch.zeros(5)), ALONE)
    with pytest.raises(AssertionError, match="together"):
        partition.cut_slot({"p0": torch.tensor(1.0), "p1": torch.tensor(2.0)})
