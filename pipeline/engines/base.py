"""The training step, and what an engine adds to it: how ranks share gradients and state."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from pipeline.config.schema import Train
from pipeline.distributed.world import World
from pipeline.engines.numerics import Autocast, LossScale, RunningStatistics, clip_
from pipeline.losses import Loss
from pipeline.optim.slots import Slots, load_slots, optimizer_slots

Tensors = dict[str, torch.Tensor]
Predict = Callable[[torch.Tensor], torch.Tensor]
"""Images, uint8 (n, height, width, 3), to logits, fp32 (n, classes)."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """A network on the rank's device, with what trains it."""

    module: nn.Module
    """Takes a loader's images and returns logits."""
    network: nn.Module
    """The part of `module` that has parameters and buffers."""
    optimizer: Optimizer
    """It has all of its slots before its first step."""
    loss: Loss


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine saves, under names that every engine uses."""

    model: Tensors
    """Parameters and buffers of the network, by their names in it."""
    optimizer: Slots
    """The optimiser's slots, each by the names of the parameters."""
    scaler: dict[str, float] = field(default_factory=dict[str, float])
    """The state of fp16's loss scale; empty in other precisions."""


class Engine(Protocol):
    """Trains and evaluates one network over all ranks."""

    def step(self, images: torch.Tensor, labels: torch.Tensor, *, lr: float) -> torch.Tensor:
        """Train on this rank's part of a global batch; return its mean loss, on the device."""
        ...

    def evaluating(self) -> AbstractContextManager[Predict]:
        """Yield the network for evaluation; in the block it is in eval mode, without gradients."""
        ...

    def synchronize(self) -> None:
        """Average batch norm's statistics over the ranks, before an evaluation or a save.

        A collective.
        """
        ...

    def state(self) -> EngineState:
        """Return the whole state, on every rank; some tensors may be live. A collective."""
        ...

    def load(self, state: EngineState) -> None:
        """Load a state that any engine saved, on any number of ranks."""
        ...


class BaseEngine(ABC):
    """See `Engine`. Subclasses fill in the hooks, which say how ranks share gradients and state."""

    def __init__(
        self, trainable: Trainable, train: Train, *, micro_batch: int, world: World
    ) -> None:
        self._network, self._optimizer = trainable.network, trainable.optimizer
        self._slot_names = set(optimizer_slots(trainable.optimizer, trainable.network))
        self._loss, self._world = trainable.loss, world
        self._module = Autocast(trainable.module, train.precision, world.device)
        self._forward: Predict = self._module
        self._evaluate: Predict = self._module
        self._micro_batch, self._clip_norm = micro_batch, train.clip_norm
        self._statistics = RunningStatistics(trainable.network)
        fp16 = train.precision == "fp16"
        self._loss_scale = LossScale(trainable.optimizer, world.device) if fp16 else None

    def step(self, images: torch.Tensor, labels: torch.Tensor, *, lr: float) -> torch.Tensor:
        """See `Engine`. All of a step is here; engines differ in the hooks alone."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        parts = [torch.split(whole, self._micro_batch) for whole in (images, labels)]
        count = len(parts[0])
        losses: list[torch.Tensor] = []
        for number, some, answers in zip(self._micro_batches(count), *parts, strict=True):
            self._statistics.take_share(number, count)
            loss = self._loss(self._forward(some), answers) / count
            self._backward(self._loss_scale.scaled(loss) if self._loss_scale else loss)
            losses.append(loss.detach())
        if self._loss_scale:
            self._loss_scale.unscale_(self._gradients(), self._all_reduce_sum_)
        if self._clip_norm:
            clip_(self._gradients(), self._clip_norm, self._all_reduce_sum_)
        self._update()
        if self._loss_scale:
            self._loss_scale.update()
        return torch.stack(losses).sum()

    @contextmanager
    def evaluating(self) -> Generator[Predict]:
        """See `Engine`."""
        self._module.eval()
        try:
            with torch.no_grad():
                yield self._evaluate
        finally:
            self._module.train()

    def synchronize(self) -> None:
        """See `Engine`."""
        buffers = self._network.buffers()
        self._world.all_reduce_mean_([buffer for buffer in buffers if buffer.is_floating_point()])

    def state(self) -> EngineState:
        """See `Engine`."""
        slots = self._slots()
        assert slots.keys() == self._slot_names, "the optimiser made slots in a step"
        scaler = self._loss_scale.state() if self._loss_scale else {}
        return EngineState(self._network.state_dict(), slots, scaler)

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """See `Engine`."""
        self._network.load_state_dict(state.model)
        self._load_slots(state.optimizer)
        if self._loss_scale:
            self._loss_scale.load(state.scaler)

    # Hooks

    @abstractmethod
    def _micro_batches(self, count: int) -> Iterator[int]:
        """Count micro batches from 1 to `count`; ranks share their gradients after the last."""

    @abstractmethod
    def _backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` to those of the micro batches before."""

    @abstractmethod
    def _update(self) -> None:
        """Take the optimiser's step and clear the gradients."""

    def _gradients(self) -> list[torch.Tensor]:
        """Return the mean gradients over all ranks, or this rank's part of them."""
        return [p.grad for p in self._network.parameters() if p.grad is not None]

    def _all_reduce_sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up `tensor` in place over the ranks, if `_gradients` are only a rank's part."""
        return tensor

    def _slots(self) -> Slots:
        """Return the optimiser's slots for whole parameters. A collective."""
        return optimizer_slots(self._optimizer, self._network)

    def _load_slots(self, saved: Slots) -> None:
        """Load slots of whole parameters; the network has its weights already."""
        load_slots(self._optimizer, self._network, saved)


def is_compiled(setting: bool | None, device: torch.device) -> bool:
    """Whether the network is compiled: None means on GPUs only, where it pays."""
    return device.type == "cuda" if setting is None else setting
