"""The shortcuts of blocks are those of the papers."""

import pytest
import torch

from pipeline.models.shortcuts import PadShortcut
from tests.support.networks import blocks_of, make, noise


def test_option_a_takes_every_other_pixel_and_pads_channels_with_zeros() -> None:
    x = noise(2, 16, 7, 8)
    out = PadShortcut(16, 2)(x)
    assert out.shape == (2, 32, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.equal(out[:, :16, row, column], x[:, :, 2 * row, 2 * column])
    assert not out[:, 16:].any()


def test_option_a_keeps_channels_last() -> None:
    x = noise(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    assert PadShortcut(16, 2)(x).is_contiguous(memory_format=torch.channels_last)


def test_cifar_shortcuts_have_no_parameters_and_change_shape_twice() -> None:
    shortcuts = [block.downsample for block in blocks_of(make("cifar_resnet32"))]
    assert len(shortcuts) == 15
    assert all(not list(shortcut.parameters()) for shortcut in shortcuts)
    assert [i for i, shortcut in enumerate(shortcuts) if isinstance(shortcut, PadShortcut)] == [
        5,
        10,
    ]


def test_plain_networks_are_the_residual_ones_without_shortcuts() -> None:
    plain = make("cifar_plain20", seed=3)
    residual = make("cifar_resnet20", seed=3, zero_init_last=False)
    for name, value in plain.state_dict().items():
        assert torch.equal(residual.state_dict()[name], value), name
    x = noise(4, 3, 16, 16)
    assert not torch.equal(plain(x), residual(x))
    for block in blocks_of(residual):
        block.downsample = None
    assert torch.equal(plain(x), residual(x))


@pytest.mark.parametrize("name", ["preact_resnet34", "preact_resnet50"])
def test_preactivation_leaves_the_shortcut_clean(name: str) -> None:
    """Sec. 2, eq. 4: within a stage, the last block's output is the first's input plus branches.

    Nothing clips it (inputs here are negative too), and the gradient passes with factor one.
    """
    network = make(name, zero_init_last=True)
    for block in blocks_of(network):
        if block.projection is None:
            x = noise(2, block.branch[-1].out_channels, 4, 4).requires_grad_()
            out = block(x)
            assert torch.equal(out, x)
            out.sum().backward()
            assert torch.equal(x.grad, torch.ones_like(x))


def test_a_preactivated_projection_sees_the_activated_input() -> None:
    block = make("preact_resnet18", zero_init_last=True).layer2[0]
    x = noise(2, 64, 8, 8)
    activated = block.bn1(x).relu()
    assert torch.equal(block(x), block.projection(activated))
