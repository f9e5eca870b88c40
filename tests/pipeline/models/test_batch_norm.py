"""Group batch norm is batch norm of each group; its statistics are the average of the groups'."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.models.batch_norm import GroupBatchNorm2d, norm_layer

CHANNELS = 3
groups = st.integers(1, 5)
group_sizes = st.integers(1, 4)
seeds = st.integers(0, 2**32)
quick = settings(max_examples=40, deadline=None)


def images(count: int, seed: int, *, height: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, CHANNELS, height, 5, generator=generator) + 1


def randomise(layer: nn.BatchNorm2d, seed: int) -> nn.BatchNorm2d:
    """Give the layer random weights and statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            tensor.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
    return layer


@quick
@given(groups, group_sizes, seeds)
def test_each_group_is_normalised_by_itself(count: int, size: int, seed: int) -> None:
    grouped = randomise(GroupBatchNorm2d(CHANNELS, group=size), seed)
    plain = nn.BatchNorm2d(CHANNELS)
    plain.load_state_dict(grouped.state_dict())
    x = images(count * size, seed)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = grouped(mine)
    expected = torch.cat([plain(part) for part in theirs.split(size)])
    assert torch.equal(out, expected)
    weighting = images(count * size, seed + 1)
    (out * weighting).sum().backward()
    (expected * weighting).sum().backward()
    assert mine.grad is not None
    assert_close(mine.grad, theirs.grad)
    assert_close(grouped.weight.grad, plain.weight.grad)
    assert_close(grouped.bias.grad, plain.bias.grad)


@quick
@given(groups, group_sizes, seeds, st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_running_statistics_move_to_the_mean_over_groups(
    count: int, size: int, seed: int, momentum: float
) -> None:
    layer = randomise(GroupBatchNorm2d(CHANNELS, group=size, momentum=momentum), seed)
    before = copy.deepcopy(layer)
    x = images(count * size, seed)
    layer(x)
    parts = [part.transpose(0, 1).flatten(1) for part in x.split(size)]
    mean = torch.stack([part.mean(1) for part in parts]).mean(0)
    variance = torch.stack([part.var(1, correction=1) for part in parts]).mean(0)
    keep = 1 - momentum
    assert_close(layer.running_mean, keep * before.running_mean + momentum * mean)
    assert_close(layer.running_var, keep * before.running_var + momentum * variance)


@quick
@given(groups, group_sizes, seeds)
def test_one_rank_with_all_groups_equals_one_rank_per_group(
    count: int, size: int, seed: int
) -> None:
    together = randomise(GroupBatchNorm2d(CHANNELS, group=size), seed)
    ranks = [copy.deepcopy(together) for _ in range(count)]
    for step in range(3):
        x = images(count * size, seed + step)
        out = together(x)
        apart = [rank(part) for rank, part in zip(ranks, x.split(size), strict=True)]
        assert torch.equal(out, torch.cat(apart))
    for name in ("running_mean", "running_var"):
        averaged = torch.stack([getattr(rank, name) for rank in ranks]).mean(0)
        assert_close(getattr(together, name), averaged)
    assert together.num_batches_tracked == ranks[0].num_batches_tracked == 3


def test_a_single_group_is_torchs_batch_norm_to_the_bit() -> None:
    grouped, plain = GroupBatchNorm2d(CHANNELS, group=6), nn.BatchNorm2d(CHANNELS)
    x = images(6, seed=0)
    assert torch.equal(grouped(x), plain(x))
    for name, value in plain.state_dict().items():
        assert torch.equal(grouped.state_dict()[name], value), name


def test_evaluation_is_torchs_at_any_batch_size() -> None:
    grouped = randomise(GroupBatchNorm2d(CHANNELS, group=4), seed=1).eval()
    plain = nn.BatchNorm2d(CHANNELS).eval()
    plain.load_state_dict(grouped.state_dict())
    before = copy.deepcopy(grouped.state_dict())
    for count in (1, 3, 4, 8):
        x = images(count, seed=count)
        assert torch.equal(grouped(x), plain(x))
    for name, value in before.items():
        assert torch.equal(grouped.state_dict()[name], value), name


def test_checkpoints_fit_torchs_batch_norm() -> None:
    grouped, plain = GroupBatchNorm2d(CHANNELS, group=4), nn.BatchNorm2d(CHANNELS)
    assert list(grouped.state_dict()) == list(plain.state_dict())
    grouped.load_state_dict(plain.state_dict())
    plain.load_state_dict(grouped.state_dict())


def test_a_group_that_does_not_divide_the_batch_is_refused() -> None:
    layer = GroupBatchNorm2d(CHANNELS, group=8)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=r"group=8 does not divide .* 12 images; try .*group=4$"):
        layer(images(12, seed=0))
    for name, value in before.items():
        assert torch.equal(layer.state_dict()[name], value), name


def test_channels_last_is_kept() -> None:
    layer = GroupBatchNorm2d(CHANNELS, group=2)
    x = images(6, seed=0)
    plain = layer(x)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = layer(last)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert_close(out, plain)
    out.square().sum().backward()
    assert last.grad is not None
    assert last.grad.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_kept_and_statistics_stay_float32() -> None:
    exact, rough = GroupBatchNorm2d(CHANNELS, group=2), GroupBatchNorm2d(CHANNELS, group=2)
    x = images(6, seed=0)
    expected = exact(x)
    half = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = rough(half)
    assert out.dtype == torch.bfloat16
    assert rough.running_mean is not None
    assert rough.running_mean.dtype == torch.float32
    assert_close(out.float(), expected, atol=0.03, rtol=0.03)
    assert_close(rough.running_var, exact.running_var, atol=0.01, rtol=0.01)
    out.float().square().sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.slow
def test_it_compiles_without_graph_breaks_to_the_same_result() -> None:
    eager = randomise(GroupBatchNorm2d(CHANNELS, group=2), seed=3)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    x = images(6, seed=0)
    for layer in (eager, compiled):
        layer(x).square().sum().backward()
    assert_close(twin.weight.grad, eager.weight.grad)
    for name, value in eager.state_dict().items():
        assert_close(twin.state_dict()[name], value)


def test_without_a_group_the_layer_is_torchs_own() -> None:
    assert type(norm_layer(None)(CHANNELS)) is nn.BatchNorm2d
    assert "group=4" in repr(norm_layer(4)(CHANNELS))


@pytest.mark.gpu
def test_it_never_waits_for_the_gpu() -> None:
    layer = GroupBatchNorm2d(CHANNELS, group=2).cuda()
    x = images(6, seed=0).cuda().bfloat16().contiguous(memory_format=torch.channels_last)
    layer(x)  # the first call may load kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = layer(x.requires_grad_())
        out.float().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.is_contiguous(memory_format=torch.channels_last)
