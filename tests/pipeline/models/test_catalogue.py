"""The networks are those of the papers, layer for layer."""

import hashlib

import pytest
import torch
from torch import nn

from pipeline.config.catalogue import Family, published_names
from pipeline.config.schema import model_named
from pipeline.models import count_parameters
from tests.support.networks import blocks_of, make, outline


@pytest.mark.slow
@pytest.mark.parametrize("name", published_names())
def test_every_published_name_builds(name: str) -> None:
    network = outline(name, classes=7)
    assert network.training
    if not name.endswith("1202"):  # one and a half seconds each
        assert network(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "digest"),
    [
        ("resnet", "1dfd2aeff096d4c1"),
        ("preact_resnet", "182ed1683c76ffc6"),
        ("cifar_resnet", "a830fc6ee9f6bbfb"),
        ("cifar_plain", "efc1c45ccbee6b42"),
    ],
)
def test_names_and_shapes_never_change(family: Family, digest: str) -> None:
    """They are part of every checkpoint: with other ones, older checkpoints no longer load."""
    found = hashlib.sha256()
    for name in published_names(family):
        if not name.endswith("1202"):
            for key, value in outline(name, classes=10).state_dict().items():
                found.update(f"{name} {key} {tuple(value.shape)}\n".encode())
    assert found.hexdigest()[:16] == digest


# --------------------------------------------------------------------------------------- sizes


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
    # The norm at the end of a block becomes the one at the start of the next, or the final one.
    # What is saved is the norm of each projection: one for each stage that starts with a new shape.
    expansion = 1 if depth < 50 else 4
    stages = [width * expansion for width in (64, 128, 256, 512)]
    assert moved == sum(stages[1:] if depth < 50 else stages)


@pytest.mark.slow
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
    assert len(layers) == model_named(name).depth


# ------------------------------------------------------------------------------------ structure


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet50"])
def test_the_stride_of_a_bottleneck_is_on_its_3x3_convolution(name: str) -> None:
    strided = [
        (m.kernel_size[0], "downsample" in path or "projection" in path)
        for path, m in outline(name, classes=10).named_modules()
        if isinstance(m, nn.Conv2d) and m.stride[0] == 2
    ]
    assert sorted(strided) == sorted([(7, False)] + [(3, False), (1, True)] * 3)


@pytest.mark.parametrize("name", ["preact_resnet34", "preact_resnet50"])
def test_preactivation_projects_only_where_the_shape_changes(name: str) -> None:
    blocks = blocks_of(make(name))
    projected = [i for i, block in enumerate(blocks) if block.projection is not None]
    assert projected == ([3, 7, 13] if name.endswith("34") else [0, 3, 7, 13])
    # The stem has activated the input of the first block; all others do it themselves.
    assert [i for i, block in enumerate(blocks) if block.bn1 is None] == [0]
