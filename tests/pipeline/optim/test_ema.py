"""The average follows its formula, and applying it to the network leaves no trace."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.distributed.world import World
from pipeline.optim.ema import WeightAverage


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    built = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return built.to(memory_format=torch.channels_last)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether bits, dtypes and memory formats are the same."""
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype
        and value.stride() == second[name].stride()
        and torch.equal(value.contiguous().view(-1), second[name].contiguous().view(-1))
        for name, value in first.items()
    )


@torch.no_grad()
def train(module: nn.Module, step: int) -> None:
    """Change every weight and, by a forward pass, the running statistics."""
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator))
    module(torch.randn(5, 3, 4, 4, generator=generator))


@pytest.mark.parametrize("every", [1, 3])
def test_the_average_follows_its_formula(every: int) -> None:
    module, decay = network(), 0.75
    average = WeightAverage(module, decay=decay, every_steps=every)
    floats = {name for name, value in module.state_dict().items() if value.is_floating_point()}
    expected = {name: value.double() for name, value in state(module).items()}
    for step in range(1, 11):
        train(module, step)
        average.update(step)
        if step % every == 0:
            updates = step // every
            share = min(decay, (1 + updates) / (10 + updates))
            for name, value in module.state_dict().items():
                expected[name] = share * expected[name] + (1 - share) * value.double()
    assert average.average.keys() == floats
    assert "1.running_var" in floats
    for name in floats:
        assert_close(average.average[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_applied_swaps_and_restores_bit_for_bit() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9, every_steps=1)
    train(module, 1)
    average.update(1)
    train(module, 2)
    live, held = state(module), {name: v.clone() for name, v in average.average.items()}
    with average.applied():
        inside = state(module)
        assert same({name: inside[name] for name in held}, held)
        assert torch.equal(inside["1.num_batches_tracked"], live["1.num_batches_tracked"])
        assert not torch.equal(inside["0.weight"], live["0.weight"])
    assert same(state(module), live)
    assert same(average.average, held)


def test_applied_restores_after_an_exception() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9, every_steps=1)
    train(module, 1)
    live, held = state(module), {name: v.clone() for name, v in average.average.items()}
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert same(state(module), live)
    assert same(average.average, held)


def test_parameters_keep_their_identity() -> None:
    """Optimisers and gradients refer to the parameters, and see no change."""
    module = network()
    before = {name: (id(value), value.data_ptr()) for name, value in module.named_parameters()}
    average = WeightAverage(module, decay=0.9, every_steps=1)
    train(module, 1)
    with average.applied():
        pass
    after = {name: (id(value), value.data_ptr()) for name, value in module.named_parameters()}
    assert after == before


def test_a_loaded_average_continues_like_the_saved_one() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9, every_steps=1)
    train(module, 1)
    average.update(1)
    copy = network(seed=1)
    copy.load_state_dict(module.state_dict())
    other = WeightAverage(copy, decay=0.9, every_steps=1)
    other.load({name: value.contiguous().clone() for name, value in average.average.items()})
    for step in range(2, 5):
        for one, its_average in ((module, average), (copy, other)):
            train(one, step)
            its_average.update(step)
    assert same(other.average, average.average)


def test_on_one_rank_synchronising_changes_nothing() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9, every_steps=1)
    held = {name: value.clone() for name, value in average.average.items()}
    average.synchronize(World())
    assert same(average.average, held)
