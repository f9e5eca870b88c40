"""What all engines have in common, so that they come to the same numbers."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from pipeline.config.schema import Train
from pipeline.distributed.world import World
from pipeline.engines import EngineState, Predict, Tensors, Trainee
from pipeline.engines.autocast import Autocast
from pipeline.engines.clipping import clip_
from pipeline.engines.loss_scale import LossScale
from pipeline.engines.statistics import RunningStatistics


class CommonEngine(ABC):
    """See `Engine`. What an engine is left to say is how ranks share gradients and state."""

    def __init__(self, trainee: Trainee, train: Train, *, micro_batch: int, world: World) -> None:
        self._network, self._optimizer, self._world = trainee.network, trainee.optimizer, world
        self._module = Autocast(trainee.module, train.precision, world.device)
        self._forward: Predict = self._module
        self._evaluate: Predict = self._module
        self._micro_batch, self._smoothing = micro_batch, train.label_smoothing
        self._clip_norm = train.clip_norm
        self._statistics = RunningStatistics(trainee.network)
        fp16 = train.precision == "fp16"
        self._loss_scale = LossScale(trainee.optimizer, world.device) if fp16 else None

    def step(self, images: torch.Tensor, labels: torch.Tensor, *, lr: float) -> torch.Tensor:
        """See `Engine`."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        loss = self._accumulate(images, labels)
        if self._loss_scale:
            self._loss_scale.unscale_(self._gradients(), self._sum_)
        if self._clip_norm:
            clip_(self._gradients(), self._clip_norm, self._sum_)
        self._update()
        if self._loss_scale:
            self._loss_scale.update()
        return loss

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
        scaler = self._loss_scale.state() if self._loss_scale else {}
        return EngineState(self._network.state_dict(), self._momentum(), scaler)

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """See `Engine`."""
        self._network.load_state_dict(state.model)
        self._load_optimizer(state.momentum)
        if self._loss_scale:
            self._loss_scale.load(state.scaler)

    def _accumulate(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add up the gradients of all micro batches; return the mean loss."""
        parts = [torch.split(whole, self._micro_batch) for whole in (images, labels)]
        count = len(parts[0])
        losses: list[torch.Tensor] = []
        for number, some, answers in zip(self._turns(count), *parts, strict=True):
            self._statistics.take_share(number, count)
            loss = self._loss(some, answers) / count
            self._backward(self._loss_scale.scaled(loss) if self._loss_scale else loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self._forward(images), labels, label_smoothing=self._smoothing)

    @abstractmethod
    def _turns(self, count: int) -> Iterator[int]:
        """Count micro batches from 1 to `count`; after the last, ranks share their gradients."""

    @abstractmethod
    def _backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` to those that are there."""

    @abstractmethod
    def _update(self) -> None:
        """Let the optimiser take a step, and forget the gradients."""

    def _gradients(self) -> list[torch.Tensor]:
        """Return the mean gradients over all ranks, or this rank's part of them."""
        return [p.grad for p in self._network.parameters() if p.grad is not None]

    def _sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up, in place, what ranks found in their `_gradients`, if these are parts."""
        return tensor

    def _momentum(self) -> Tensors:
        """Return the momentum of each parameter by its name; a collective."""
        state = self._optimizer.state
        return {name: state[p]["momentum_buffer"] for name, p in self._network.named_parameters()}

    def _load_optimizer(self, momentum: Tensors) -> None:
        """Let the optimiser go on with this momentum, from the weights that are in the network."""
        for name, buffer in self._momentum().items():
            buffer.copy_(momentum[name])


def is_compiled(setting: bool | None, device: torch.device) -> bool:
    """Whether the network is compiled: None is on GPUs only, where it pays."""
    return device.type == "cuda" if setting is None else setting
