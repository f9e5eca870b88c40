"""The loader's uint8 images reach the network normalised as in the papers."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.config.schema import model_named
from pipeline.models import build
from pipeline.models.input import Normalized

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_network() -> nn.Module:
    return build(model_named("cifar_resnet8"), classes=10, generator_seed=0)


def photographs(count: int = 4, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


class Witness(nn.Module):
    """Records its input: what `Normalized` gives to its network."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.mean((2, 3))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_bytes_become_normalised_float32(channels_last: bool, autocast: bool) -> None:
    witness = Witness()
    wrapped = Normalized(witness, mean=MEAN, std=STD, channels_last=channels_last)
    batch = photographs()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        wrapped(batch)
    share = batch.double().permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (MEAN, STD))
    assert witness.seen.dtype == torch.float32
    assert_close(witness.seen.double(), (share - mean) / std, atol=1e-6, rtol=1e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert witness.seen.is_contiguous(memory_format=layout)


def test_logits_are_float32_under_autocast() -> None:
    network = small_network()
    wrapped = Normalized(network, mean=MEAN, std=STD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.rand(4, 3, 16, 16)).dtype == torch.bfloat16
        assert wrapped(photographs()).dtype == torch.float32


def test_the_memory_layout_never_changes_the_result() -> None:
    network = small_network().eval()
    last = Normalized(network, mean=MEAN, std=STD, channels_last=True)
    first = Normalized(network, mean=MEAN, std=STD, channels_last=False)
    with torch.no_grad():
        assert_close(last(photographs()), first(photographs()))


def test_the_wrapper_adds_nothing_to_a_checkpoint() -> None:
    network = small_network()
    wrapped = Normalized(network, mean=MEAN, std=STD)
    assert wrapped.network is network
    assert list(wrapped.state_dict()) == [f"network.{path}" for path in network.state_dict()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar_resnet8", "preact_resnet18", "resnet18"])
def test_a_normalised_network_compiles_without_graph_breaks(name: str) -> None:
    model = model_named(name, batch_norm_group=2)
    network = build(model, classes=10, generator_seed=0)
    wrapped = Normalized(network, mean=MEAN, std=STD)
    compiled = torch.compile(copy.deepcopy(wrapped), backend="eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(compiled(photographs(side=32)), wrapped(photographs(side=32)))
    torch.compiler.reset()
