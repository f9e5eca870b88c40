"""PyTorch's DistributedDataParallel as the engine; without peers, the bare network."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.schema import Ddp, Train
from pipeline.distributed import World
from pipeline.engines import EngineState, Predict, Trainee
from pipeline.engines.state import read_state, write_state
from pipeline.engines.statistics import RunningStatistics

LOCAL_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}  # its name from torch 2.15 on
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
"""`synchronize` averages the buffers when they are looked at, not at each step."""
AUTOCAST_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DdpEngine:
    """See `Engine`."""

    def __init__(
        self,
        spec: Ddp,
        trainee: Trainee,
        train: Train,
        *,
        micro_batch: int,
        image_size: int,
        world: World,
    ) -> None:
        self._trainee, self._world = trainee, world
        self._micro_batch, self._smoothing = micro_batch, train.label_smoothing
        self._dtype = AUTOCAST_DTYPES[train.precision]
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16")
        self._statistics = RunningStatistics(trainee.network)
        self._replica = _replicate(trainee.module, spec, world, train.accumulation)
        self._forward: Predict = self._replica or trainee.module
        self._evaluate: Predict = trainee.module
        if is_compiled(train.compile, world.device):
            # Around DDP, so that its all-reduces still overlap with the backward pass.
            self._forward = torch.compile(self._forward)
            self._evaluate = torch.compile(self._evaluate)
        if self._replica:
            self._settle_buckets(image_size)

    def step(self, images: torch.Tensor, labels: torch.Tensor, *, lr: float) -> torch.Tensor:
        """See `Engine`."""
        optimizer = self._trainee.optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr
        parts = [torch.split(whole, self._micro_batch) for whole in (images, labels)]
        count = len(parts[0])
        losses: list[torch.Tensor] = []
        for number, (some, answers) in enumerate(zip(*parts, strict=True), start=1):
            self._statistics.take_share(number, count)
            with nullcontext() if number == count else self._local_gradients():
                loss = self._loss(some, answers) / count
                self._scaler.scale(loss).backward()
            losses.append(loss.detach())
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    @contextmanager
    def evaluating(self) -> Generator[Predict]:
        """See `Engine`."""
        module = self._trainee.module
        module.eval()
        try:
            with torch.no_grad():
                yield lambda images: self._logits(self._evaluate, images)
        finally:
            module.train()

    def synchronize(self) -> None:
        """See `Engine`."""
        buffers = self._trainee.network.buffers()
        self._world.average_([buffer for buffer in buffers if buffer.is_floating_point()])

    def state(self) -> EngineState:
        """See `Engine`."""
        return read_state(self._trainee, self._scaler)

    def load(self, state: EngineState) -> None:
        """See `Engine`."""
        write_state(state, self._trainee, self._scaler)

    def _settle_buckets(self, image_size: int) -> None:
        """Let DDP regroup its gradients, which it does after its first step, before ours.

        Else a run that resumes would add up its next step in another order than one that went on.
        """
        network, shape = self._trainee.network, (self._micro_batch, image_size, image_size, 3)
        images = torch.zeros(shape, dtype=torch.uint8, device=self._world.device)
        labels = torch.zeros(self._micro_batch, dtype=torch.int64, device=self._world.device)
        before = [buffer.clone() for buffer in network.buffers()]
        for _ in range(2):
            self._loss(images, labels).backward()
            self._trainee.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._logits(self._forward, images)
        return F.cross_entropy(logits, labels, label_smoothing=self._smoothing)

    def _logits(self, forward: Predict, images: torch.Tensor) -> torch.Tensor:
        enabled = self._dtype != torch.float32
        with torch.autocast(self._world.device.type, self._dtype, enabled=enabled):
            return forward(images).float()

    def _local_gradients(self) -> AbstractContextManager[None]:
        """Keep gradients on this rank: only a step's last micro batch pays for the all-reduce."""
        return self._replica.no_sync() if self._replica else nullcontext()


def _replicate(
    module: nn.Module, spec: Ddp, world: World, accumulation: int
) -> DistributedDataParallel | None:
    if world.size == 1:
        return None
    return DistributedDataParallel(
        module,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        **LOCAL_BUFFERS,
        gradient_as_bucket_view=True,
        static_graph=accumulation == 1,  # which does not go together with no_sync
        bucket_cap_mb=spec.bucket_megabytes,
    )


def is_compiled(setting: bool | None, device: torch.device) -> bool:
    """Whether the network is compiled: None is on GPUs only, where it pays."""
    return device.type == "cuda" if setting is None else setting
