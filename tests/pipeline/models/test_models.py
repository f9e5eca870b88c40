"""The catalogue's networks are those of the papers, layer for layer."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision import models as torchvision_models

from pipeline.config.catalogue import published_names
from pipeline.config.schema import Model
from pipeline.models import build, count_parameters
from pipeline.models.cifar import PadShortcut
from pipeline.models.cifar import Unit as CifarUnit
from pipeline.models.preact import PreactResNet
from pipeline.models.preact import Unit as PreactUnit

SMALL = ["resnet18", "preact_resnet18", "preact_resnet50", "cifar_resnet20", "cifar_plain20"]


def make(name: str, *, classes: int = 10, seed: int = 0, **rest: object) -> nn.Module:
    return build(Model(name=name, **rest), classes=classes, generator_seed=seed)


def outline(name: str, *, classes: int) -> nn.Module:
    """The network without its numbers, which are slow to draw."""
    with torch.device("meta"):
        return make(name, classes=classes)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("name", published_names())
def test_every_published_name_builds(name: str) -> None:
    network = outline(name, classes=7)
    assert network.training
    if not name.endswith("1202"):  # one and a half seconds each
        assert network(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("preact_resnet50", 25_549_352),
        ("preact_resnet101", 44_541_480),
    ],
)
def test_imagenet_networks_have_the_published_size(name: str, parameters: int) -> None:
    assert count_parameters(outline(name, classes=1000)) == parameters


def test_preact_resnet200_has_the_published_size() -> None:
    assert round(count_parameters(outline("preact_resnet200", classes=1000)) / 1e6, 1) == 64.7


def batch_norm_channels(network: nn.Module) -> int:
    return sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_preactivation_moves_batch_norms_and_nothing_else(depth: int) -> None:
    post = outline(f"resnet{depth}", classes=1000)
    pre = outline(f"preact_resnet{depth}", classes=1000)
    moved = batch_norm_channels(post) - batch_norm_channels(pre)
    assert count_parameters(post) - count_parameters(pre) == 2 * moved
    # The norm at the end of a unit becomes that at the start of the next, or the final one. So what
    # is saved are the norms of the projections: one for each stage that begins with a new shape.
    expansion = 1 if depth < 50 else 4
    stages = [width * expansion for width in (64, 128, 256, 512)]
    assert moved == sum(stages[1:] if depth < 50 else stages)


@pytest.mark.parametrize("family", ["cifar_resnet", "cifar_plain"])
@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7"), (1202, "19.4")],
)
def test_cifar_networks_have_the_size_of_table_6(family: str, depth: int, millions: str) -> None:
    parameters = count_parameters(outline(f"{family}{depth}", classes=10))
    digits = len(millions.split(".")[1])
    assert f"{parameters / 1e6:.{digits}f}" == millions
    n = (depth - 2) // 6
    convolutions = 9 * (3 * 16 + 2 * n * 16**2)
    convolutions += 9 * (16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert parameters == convolutions + norms + 64 * 10 + 10


@pytest.mark.parametrize("name", ["cifar_resnet20", "preact_resnet50", "preact_resnet34"])
def test_depth_counts_the_weighted_layers(name: str) -> None:
    network = make(name)
    layers = [
        module
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "projection" not in path
    ]
    assert len(layers) == Model(name=name).architecture.depth


@pytest.mark.parametrize("side", [4, 5, 8, 32])
@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8"])
def test_cifar_networks_take_images_of_any_size(name: str, side: int) -> None:
    assert make(name)(noise(2, 3, side, side)).shape == (2, 10)


def test_resnet50_and_torchvisions_read_each_others_weights() -> None:
    mine = make("resnet50", batch_norm_group=4, classes=10)
    theirs = torchvision_models.resnet50(num_classes=10)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = noise(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(mine.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", SMALL)
def test_grouped_networks_treat_each_group_as_a_batch(name: str) -> None:
    grouped, plain = make(name, batch_norm_group=2), make(name)
    assert list(grouped.state_dict()) == list(plain.state_dict())
    x = noise(4, 3, 32, 32)
    with torch.no_grad():
        assert_close(grouped(x), torch.cat([plain(part) for part in x.split(2)]))


@pytest.mark.parametrize("name", SMALL)
def test_the_backward_pass_reaches_every_weight(name: str) -> None:
    network = make(name, zero_init_last=False)
    network(noise(4, 3, 32, 32)).square().sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 0, path


# ----------------------------------------------------------------------------------- shortcuts


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
    units = [m for m in make("cifar_resnet32").modules() if isinstance(m, CifarUnit)]
    assert len(units) == 15
    assert all(not list(unit.shortcut.parameters()) for unit in units)
    assert [i for i, unit in enumerate(units) if isinstance(unit.shortcut, PadShortcut)] == [5, 10]


def test_plain_networks_are_the_residual_ones_without_shortcuts() -> None:
    plain = make("cifar_plain20", seed=3)
    residual = make("cifar_resnet20", seed=3, zero_init_last=False)
    for name, value in plain.state_dict().items():
        assert torch.equal(residual.state_dict()[name], value), name
    x = noise(4, 3, 16, 16)
    assert not torch.equal(plain(x), residual(x))
    for unit in residual.modules():
        if isinstance(unit, CifarUnit):
            unit.shortcut = None
    assert torch.equal(plain(x), residual(x))


def test_plain_networks_never_start_at_zero() -> None:
    network = make("cifar_plain20", zero_init_last=True)
    assert all(
        parameter.any() for path, parameter in network.named_parameters() if "weight" in path
    )


def preact_units(network: nn.Module) -> list[PreactUnit]:
    return [m for m in network.modules() if isinstance(m, PreactUnit)]


@pytest.mark.parametrize("name", ["preact_resnet34", "preact_resnet50"])
def test_preactivation_leaves_the_shortcut_clean(name: str) -> None:
    """Sec. 2, eq. 4: within a stage, the last unit's output is the first one's input plus branches.

    Nothing clips it (inputs here are negative too), and the gradient passes with factor one.
    """
    network = make(name, zero_init_last=True)
    for unit in preact_units(network):
        if unit.projection is None:
            x = noise(2, unit.outputs, 4, 4).requires_grad_()
            out = unit(x)
            assert torch.equal(out, x)
            out.sum().backward()
            assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("name", ["preact_resnet34", "preact_resnet50"])
def test_preactivation_projects_only_where_the_shape_changes(name: str) -> None:
    units = preact_units(make(name))
    projected = [i for i, unit in enumerate(units) if unit.projection is not None]
    assert projected == ([3, 7, 13] if name.endswith("34") else [0, 3, 7, 13])
    # The stem has activated for the first unit; every other one does so itself.
    assert [i for i, unit in enumerate(units) if unit.bn1 is None] == [0]


def test_a_preactivated_projection_sees_the_activated_input() -> None:
    network = make("preact_resnet18", zero_init_last=True)
    assert isinstance(network, PreactResNet)
    unit = network.layer2[0]
    x = noise(2, 64, 8, 8)
    activated = unit.bn1(x).relu()
    assert torch.equal(unit(x), unit.projection(activated))


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet50"])
def test_a_bottlenecks_stride_is_on_its_3x3_convolution(name: str) -> None:
    strided = [
        (m.kernel_size[0], "downsample" in path or "projection" in path)
        for path, m in outline(name, classes=10).named_modules()
        if isinstance(m, nn.Conv2d) and m.stride[0] == 2
    ]
    assert sorted(strided) == sorted([(7, False)] + [(3, False), (1, True)] * 3)
