"""Networks start as the papers say, and always the same way from the same seed."""

import copy
import math

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from pipeline.models.blocks import PostActivation, PreActivation
from tests.support.networks import SMALL, make, noise


def remove_branches(network: nn.Module) -> nn.Module:
    """The same network with every block replaced by its shortcut alone."""
    bare = copy.deepcopy(network)
    for path, block in list(bare.named_modules()):
        match block:
            case PostActivation():
                shortcut = nn.Sequential(block.downsample, nn.ReLU())
            case PreActivation(projection=None):
                shortcut = nn.Identity()
            case PreActivation():
                before = [] if block.bn1 is None else [block.bn1, nn.ReLU()]
                shortcut = nn.Sequential(*before, block.projection)
            case _:
                continue
        bare.set_submodule(path, shortcut)
    return bare


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "preact_resnet18", "preact_resnet50", "cifar_resnet20"]
)
@pytest.mark.parametrize("zero", [True, False])
def test_residual_blocks_start_as_their_shortcuts_if_asked(name: str, zero: bool) -> None:
    network = make(name, zero_init_last=zero)
    bare = remove_branches(network)
    x = noise(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), bare(x)) is zero


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "cifar_resnet20"])
def test_what_starts_at_zero_learns(name: str) -> None:
    network = make(name, zero_init_last=True)
    zeros = [path for path, p in network.named_parameters() if p.ndim != 1 and not p.any()]
    zeros += [
        path for path, p in network.named_parameters() if "bn2.weight" in path and not p.any()
    ]
    assert zeros
    network(noise(4, 3, 32, 32)).square().sum().backward()
    for path in zeros:
        assert network.get_parameter(path).grad.abs().max() > 0, path


@pytest.mark.parametrize("name", SMALL)
def test_convolutions_start_with_hes_deviation(name: str) -> None:
    network = make(name, zero_init_last=False)
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            he = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            # Six standard errors of the deviation and of the mean of this many weights.
            assert abs(weight.std() / he - 1) < 6 / math.sqrt(2 * weight.numel()), path
            assert abs(weight.mean() / he) < 6 / math.sqrt(weight.numel()), path
            assert module.bias is None, path


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_weights_are_a_pure_function_of_the_seed(name: str) -> None:
    once = make(name, seed=5, zero_init_last=False).state_dict()
    torch.rand(3)
    again = make(name, seed=5, zero_init_last=False).state_dict()
    other = make(name, seed=6, zero_init_last=False).state_dict()
    for path, value in once.items():
        assert torch.equal(again[path], value), path
        if value.ndim > 1:
            assert not torch.equal(other[path], value), path


# ------------------------------------------------------- the weights of a seed never change


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("zero", [True, False])
def test_a_resnet_starts_as_torchvisions_from_the_same_seed(name: str, zero: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = getattr(torchvision_models, name)(num_classes=10, zero_init_residual=zero)
    expect_equal(make(name, seed=5, zero_init_last=zero), theirs)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20", "preact_resnet18"])
def test_other_networks_draw_layer_by_layer(name: str) -> None:
    """Each layer gets default weights, then He's; a pre-activation network's stem comes late."""
    network = make(name, seed=5, zero_init_last=False)
    expected = copy.deepcopy(network)
    layers = [m for m in expected.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if name.startswith("preact"):
        layers.insert(-1, layers.pop(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for layer in layers:
            layer.reset_parameters()
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    expect_equal(network, expected)


def expect_equal(mine: nn.Module, theirs: nn.Module) -> None:
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for path, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[path], value), path


def test_plain_networks_never_start_at_zero() -> None:
    network = make("cifar_plain20", zero_init_last=True)
    assert all(
        parameter.any() for path, parameter in network.named_parameters() if "weight" in path
    )


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_callers_random_state_is_left_alone(seed: int) -> None:
    before = torch.get_rng_state()
    make("cifar_resnet8", seed=seed)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_the_callers_random_state_on_the_gpu_is_left_alone() -> None:
    before = torch.cuda.get_rng_state()
    make("cifar_resnet8", seed=11)
    assert torch.equal(torch.cuda.get_rng_state(), before)
