"""The network computes what torchvision's does, on any image, with any batch-norm groups."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision import models as torchvision_models

from tests.support.networks import SMALL, make, noise, outline


def torchvisions(name: str, **settings: object) -> nn.Module:
    return getattr(torchvision_models, name)(num_classes=10, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_shapes_are_torchvisions(depth: int) -> None:
    mine = outline(f"resnet{depth}", classes=10).state_dict()
    with torch.device("meta"):
        theirs = torchvisions(f"resnet{depth}").state_dict()
    shapes = [[(name, value.shape) for name, value in s.items()] for s in (mine, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_logits_gradients_and_statistics_are_torchvisions(
    name: str, bf16: bool, layout: torch.memory_format
) -> None:
    mine = make(name, zero_init_last=False).to(memory_format=layout)
    theirs = torchvisions(name).to(memory_format=layout)
    theirs.load_state_dict(mine.state_dict())
    x = noise(4, 3, 64, 64).contiguous(memory_format=layout)
    logits: list[Tensor] = []
    for network in (mine, theirs):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits.append(network(x))
        logits[-1].float().square().sum().backward()
    assert torch.equal(*logits)
    gradients = dict(theirs.named_parameters())
    for path, parameter in mine.named_parameters():
        assert torch.equal(parameter.grad, gradients[path].grad), path
    for path, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[path], value), path


def test_resnet50_and_torchvisions_read_each_others_weights() -> None:
    mine = make("resnet50", batch_norm_group=4, classes=10)
    theirs = torchvisions("resnet50")
    theirs.load_state_dict(mine.state_dict(), strict=True)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = noise(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(mine.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("side", [4, 5, 8, 32])
@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8"])
def test_cifar_networks_take_images_of_any_size(name: str, side: int) -> None:
    assert make(name)(noise(2, 3, side, side)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_grouped_networks_treat_each_group_as_a_batch(name: str) -> None:
    grouped, plain = make(name, batch_norm_group=2), make(name)
    assert list(grouped.state_dict()) == list(plain.state_dict())
    x = noise(4, 3, 32, 32)
    with torch.no_grad():
        assert_close(grouped(x), torch.cat([plain(part) for part in x.split(2)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_backward_pass_reaches_every_weight(name: str) -> None:
    network = make(name, zero_init_last=False)
    network(noise(4, 3, 32, 32)).square().sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_copy_computes_the_same(name: str) -> None:
    network = make(name)
    x = noise(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(x), network(x))
