"""The optimiser: SGD over two groups of parameters, with and without weight decay."""

import torch
from torch import nn
from torch.optim import SGD

from pipeline.config.schema import Sgd
from pipeline.optim.eager import EagerSgd

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # pyright: ignore[reportPrivateUsage]


def build_optimizer(network: nn.Module, spec: Sgd) -> SGD:
    """Return an SGD over `network`, with all of its slots; engines set the rate before each step.

    On GPUs it is the fused SGD. On a CPU the fused SGD rounds a tensor's last elements differently,
    so results would depend on how an engine partitions the parameters.
    """
    decayed, exempt = split_parameters(network)
    if spec.decay_norm_and_bias:
        decayed, exempt = [*decayed, *exempt], []
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    on_gpu = any(parameter.is_cuda for parameter in network.parameters())
    optimizer = EagerSgd(
        [group for group in groups if group["params"]],
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        fused=on_gpu,
        foreach=not on_gpu,
    )
    # The fused SGD leaves momentum uninitialised where fp16 overflows in the first step.
    for parameter in [*decayed, *exempt]:
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def split_parameters(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters with weight decay, matrices, and those without, norms and biases.

    Norm layers are recognised by their type: their names differ between networks.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_exempt = isinstance(module, NORMS) or name == "bias"
            (exempt if is_exempt else decayed).append(parameter)
    return decayed, exempt


def peak_rate(spec: Sgd, global_batch: int) -> float:
    """Return the peak learning rate at `global_batch` (linear scaling, Goyal et al. 2017)."""
    return spec.lr * global_batch / spec.lr_batch if spec.lr_batch else spec.lr
