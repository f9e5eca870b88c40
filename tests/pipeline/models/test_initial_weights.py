"""Networks start as the papers say, and always the same way from the same seed."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from pipeline.config.schema import Model
from pipeline.models import build
from pipeline.models.cifar import Unit as CifarUnit
from pipeline.models.preact import Unit as PreactUnit

SMALL = ["resnet18", "preact_resnet18", "preact_resnet50", "cifar_resnet20", "cifar_plain20"]


def make(name: str, *, seed: int = 0, zero_init_last: bool = True) -> nn.Module:
    model = Model(name=name, zero_init_last=zero_init_last)
    return build(model, classes=10, generator_seed=seed)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def remove_branches(network: nn.Module) -> nn.Module:
    """The same network with every residual unit replaced by what its shortcut alone does."""
    bare = copy.deepcopy(network)
    for path, unit in list(bare.named_modules()):
        match unit:
            case BasicBlock() | Bottleneck():
                stand_in = nn.Sequential(unit.downsample or nn.Identity(), nn.ReLU())
            case CifarUnit():
                stand_in = nn.Sequential(unit.shortcut, nn.ReLU())
            case PreactUnit(projection=None):
                stand_in = nn.Identity()
            case PreactUnit():
                before = [] if unit.bn1 is None else [unit.bn1, nn.ReLU()]
                stand_in = nn.Sequential(*before, unit.projection)
            case _:
                continue
        bare.set_submodule(path, stand_in)
    return bare


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "preact_resnet18", "preact_resnet50", "cifar_resnet20"]
)
@pytest.mark.parametrize("zero", [True, False])
def test_residual_units_start_as_their_shortcuts_if_asked(name: str, zero: bool) -> None:
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
            # Six standard errors of a deviation, and of a mean, estimated from so many weights.
            assert abs(weight.std() / he - 1) < 6 / math.sqrt(2 * weight.numel()), path
            assert abs(weight.mean() / he) < 6 / math.sqrt(weight.numel()), path
            assert module.bias is None, path


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
