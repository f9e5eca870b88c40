"""The numerics of a step: gradient clipping and the loss scale of fp16."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from pipeline.distributed.world import World
from pipeline.engines.numerics import LossScale, clip_

ALONE = World()
INFINITE = math.inf


def same(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over a single rank."""
    return tensor


def some(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# ------------------------------------------------------------------------------------ clipping


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 7.0, 1e9])
def test_clipping_equals_pytorchs(clip_norm: float) -> None:
    ours, theirs = some((3, 4), (5,), ()), some((3, 4), (5,), ())
    holders = [nn.Parameter(torch.zeros_like(tensor)) for tensor in theirs]
    for holder, gradient in zip(holders, theirs, strict=True):
        holder.grad = gradient
    clip_(ours, clip_norm, same)
    torch.nn.utils.clip_grad_norm_(holders, clip_norm)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_smaller_gradients_are_not_scaled() -> None:
    ours, theirs = some((30,)), some((30,))
    clip_(ours, 1e6, same)
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("cuts", [[1000], [1, 999], [333, 334, 333], [500] * 2])
def test_clipping_does_not_depend_on_how_gradients_are_split(cuts: list[int]) -> None:
    whole = some((1000,))[0]
    expected = [whole.clone()]
    clip_(expected, 0.5, same)
    pieces = list(torch.split(whole, cuts))
    clip_(pieces, 0.5, same)
    assert torch.equal(torch.cat(pieces), expected[0])


def test_the_norm_is_over_all_ranks() -> None:
    mine, other = some((10,), seed=1)[0], some((20,), seed=2)[0]
    whole = [torch.cat([mine, other])]
    clip_([mine], 0.5, lambda squares: squares.add_(other.double().square().sum()))
    clip_(whole, 0.5, same)
    assert torch.equal(mine, whole[0][:10])


# ---------------------------------------------------------------------------------- loss scale


def train_twins(gradients: list[list[float]]) -> list[tuple[torch.Tensor, float]]:
    """Take steps with these scaled gradients, with our loss scale and with PyTorch's."""
    twins = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizers = [SGD([twin], lr=0.25, momentum=0.5, fused=True) for twin in twins]
    for twin, optimizer in zip(twins, optimizers, strict=True):
        optimizer.state[twin]["momentum_buffer"] = torch.zeros(2)
    ours = LossScale(optimizers[0], ALONE.device)
    theirs = torch.amp.GradScaler("cpu")
    theirs.scale(torch.zeros(()))  # it is created on first use
    for gradient in gradients:
        for twin in twins:
            twin.grad = torch.tensor(gradient)
        assert ours.scaled(torch.ones(())) == theirs.scale(torch.ones(()))
        ours.unscale_([twins[0].grad], same)  # pyright: ignore[reportArgumentType]
        optimizers[0].step()
        ours.update()
        theirs.step(optimizers[1])
        theirs.update()
    states = ours.state()["scale"], theirs.get_scale()
    return list(zip((twin.detach() for twin in twins), states, strict=True))


@pytest.mark.parametrize(
    "gradients",
    [
        [[65536.0, -131072.0], [32768.0, 0.0]],
        [[INFINITE, 1.0], [65536.0, 65536.0]],
        [[65536.0, 0.0], [math.nan, 0.0], [1.0, -INFINITE], [32768.0, 8.0]],
        [[65536.0, 1.0]] * 2001,
    ],
    ids=["finite", "first", "later", "growth"],
)
def test_the_loss_scale_equals_pytorchs(gradients: list[list[float]]) -> None:
    ours, theirs = train_twins(gradients)
    assert torch.equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


def test_a_step_is_skipped_if_any_rank_overflows() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = SGD([parameter], lr=1)
    scale = LossScale(optimizer, ALONE.device)
    parameter.grad = torch.ones(2)
    scale.unscale_([parameter.grad], lambda found: found.add_(3))  # three others overflow
    optimizer.step()
    scale.update()
    assert torch.equal(parameter.detach(), torch.ones(2))
    assert scale.state() == {"scale": 2.0**15, "steps": 0}


def test_a_loss_scale_continues_from_its_state() -> None:
    first, second = (
        LossScale(SGD([nn.Parameter(torch.ones(1))], lr=1), ALONE.device) for _ in range(2)
    )
    first.load({"scale": 8.0, "steps": 1999})
    second.load(first.state())
    second.load({})
    assert second.state() == {"scale": 8.0, "steps": 1999}
    second.unscale_([torch.ones(1)], same)
    second.update()
    assert second.state() == {"scale": 16.0, "steps": 0}
