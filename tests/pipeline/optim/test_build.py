"""Weight decay excludes norms and biases, and SGD follows its formula."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.schema import Sgd, model_named
from pipeline.models import build
from pipeline.optim.build import build_optimizer, split_parameters

NAMES = ["resnet50", "preact_resnet50", "cifar_resnet20", "cifar_plain20"]


class Misleading(nn.Module):
    """Norms named like convolutions, and the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.BatchNorm2d(4)
        self.bn1 = nn.Conv2d(3, 4, 3, bias=True)
        self.downsample = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.weight = nn.GroupNorm(2, 4)
        self.fc = nn.LayerNorm(4)
        self.norm = nn.Linear(4, 2)


def names(network: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    by_identity = {id(value): name for name, value in network.named_parameters()}
    return {by_identity[id(parameter)] for parameter in parameters}


def test_norms_are_recognised_by_their_type() -> None:
    network = Misleading()
    decayed, exempt = split_parameters(network)
    assert names(network, decayed) == {"bn1.weight", "downsample.0.weight", "norm.weight"}
    norms = {"conv1", "downsample.1", "weight", "fc"}
    weights = {f"{norm}.weight" for norm in norms}
    assert names(network, exempt) == weights | {f"{norm}.bias" for norm in norms} | {
        "bn1.bias",
        "norm.bias",
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", [None, 4])
def test_only_matrices_decay(name: str, group: int | None) -> None:
    """In a residual network, parameters with fewer than two dimensions are norms and biases."""
    with torch.device("meta"):
        model = model_named(name, batch_norm_group=group)
        network = build(model, classes=10, generator_seed=0)
    decayed, exempt = split_parameters(network)
    assert all(parameter.ndim >= 2 for parameter in decayed)
    assert all(parameter.ndim == 1 for parameter in exempt)
    both = [id(parameter) for parameter in [*decayed, *exempt]]
    assert sorted(both) == sorted(id(parameter) for parameter in network.parameters())


def test_norms_in_shortcuts_are_exempt() -> None:
    network = build(model_named("resnet50"), classes=10, generator_seed=0)
    exempt = names(network, split_parameters(network)[1])
    shortcuts = {name for name in exempt if "downsample" in name}
    assert len(shortcuts) == 4 * 2  # a batch norm in each stage, with weight and bias


@pytest.mark.parametrize("everything", [True, False])
def test_groups_cover_every_parameter_once(everything: bool) -> None:
    network = Misleading()
    optimizer = build_optimizer(network, Sgd(lr=1, decay_norm_and_bias=everything))
    held = [id(value) for group in optimizer.param_groups for value in group["params"]]
    assert sorted(held) == sorted(id(value) for value in network.parameters())
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == ([1e-4] if everything else [1e-4, 0.0])


def test_a_network_without_norms_and_biases_trains() -> None:
    network = nn.Linear(2, 2, bias=False)
    optimizer = build_optimizer(network, Sgd(lr=1, decay_norm_and_bias=False))
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("everything", [True, False])
def test_steps_follow_the_formula(momentum: float, nesterov: bool, everything: bool) -> None:
    """`v <- m v + g + d w`; `w <- w - lr v`, or with Nesterov `w - lr (g + d w + m v)`.

    The rate changes from step to step and takes effect at once, as in Goyal et al. 2017, eq. 9.
    """
    if nesterov and momentum == 0:
        return  # refused by the schema
    decay = 0.1
    spec = Sgd(
        lr=1,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=decay,
        decay_norm_and_bias=everything,
    )
    generator = torch.Generator().manual_seed(0)

    def random_like(value: Tensor) -> Tensor:
        return torch.randn(value.shape, dtype=torch.float64, generator=generator)

    network = Misleading().double()
    optimizer = build_optimizer(network, spec)
    exempt = {"bn1.bias", "norm.bias"} | {
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm))
    }
    weights = {name: value.detach().clone() for name, value in network.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    for lr in (0.1, 0.5, 0.02, 0.3):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, parameter in network.named_parameters():
            parameter.grad = random_like(parameter)
            spared = not everything and (name in exempt or name.rpartition(".")[0] in exempt)
            pull = parameter.grad + (0 if spared else decay) * weights[name]
            velocity[name] = momentum * velocity[name] + pull
            move = pull + momentum * velocity[name] if nesterov else velocity[name]
            weights[name] = weights[name] - lr * move
        optimizer.step()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], rtol=1e-12, atol=1e-12)
