"""How a step is carried out over the ranks. An engine changes the speed, never the result."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn
from torch.optim import SGD

from pipeline.config.schema import Ddp, DeepSpeed, Train
from pipeline.distributed.world import World

Tensors = dict[str, torch.Tensor]
Predict = Callable[[torch.Tensor], torch.Tensor]
"""Images, uint8 (n, height, width, 3), to logits, fp32 (n, classes)."""


@dataclass(frozen=True, slots=True)
class Trainee:
    """What is trained, on the rank's device."""

    module: nn.Module
    """Takes images as a loader brings them, and returns logits."""
    network: nn.Module
    """The part of `module` that has parameters and buffers."""
    optimizer: SGD


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine must remember, under names that mean the same to every engine."""

    model: Tensors
    """Parameters and buffers of the network, by their names in it."""
    momentum: Tensors
    """The optimiser's momentum, by the parameter's name."""
    scaler: dict[str, float] = field(default_factory=dict[str, float])
    """The state of fp16's loss scale; empty in other precisions."""


class Engine(Protocol):
    """Trains and evaluates one network over all ranks."""

    def step(self, images: torch.Tensor, labels: torch.Tensor, *, lr: float) -> torch.Tensor:
        """Train on this rank's part of a global batch; return its mean loss, on the device."""
        ...

    def evaluating(self) -> AbstractContextManager[Predict]:
        """Lend the network for evaluation; in the block it is in eval mode, without gradients."""
        ...

    def synchronize(self) -> None:
        """Make the ranks' batch-norm statistics one, before evaluating or saving. A collective."""
        ...

    def state(self) -> EngineState:
        """Return the whole state, on every rank; part of it may be live. A collective."""
        ...

    def load(self, state: EngineState) -> None:
        """Take over a saved state, of whatever engine and number of ranks."""
        ...


def open_engine(
    spec: Ddp | DeepSpeed,
    trainee: Trainee,
    train: Train,
    *,
    micro_batch: int,
    image_size: int,
    world: World,
) -> Engine:
    """Return the engine that `spec` names; training images are squares of `image_size` pixels.

    Raises `ValueError` if it is not installed.
    """
    match spec:
        case Ddp():
            from pipeline.engines.ddp import DdpEngine

            return DdpEngine(
                spec, trainee, train, micro_batch=micro_batch, image_size=image_size, world=world
            )
        case DeepSpeed():
            from pipeline.engines.deepspeed import open_deepspeed

            return open_deepspeed(spec, trainee, train, micro_batch=micro_batch, world=world)
