"""PyTorch's DistributedDataParallel as the engine; a single rank trains the bare network."""

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.schema import Ddp, Train
from pipeline.distributed.world import World
from pipeline.engines.base import BaseEngine, Trainable, is_compiled
from pipeline.engines.replica import EagerReplica

LOCAL_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}  # its name from torch 2.15 on
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
"""`synchronize` averages the buffers where they are used, not in each step."""


class DdpEngine(BaseEngine):
    """See `Engine`."""

    def __init__(
        self,
        spec: Ddp,
        trainable: Trainable,
        train: Train,
        *,
        micro_batch: int,
        image_size: int,
        world: World,
    ) -> None:
        super().__init__(trainable, train, micro_batch=micro_batch, world=world)
        compiled = is_compiled(train.compile, world.device)
        self._replica = _replicate(
            self._module, spec, world, accumulation=train.accumulation, compiled=compiled
        )
        self._forward = self._replica or self._module
        if compiled:
            # Around DDP, so that its all-reduces still overlap with the backward pass.
            self._forward = torch.compile(self._forward)
            self._evaluate = torch.compile(self._module)
        if self._replica:
            self._settle_buckets(image_size)

    def _micro_batches(self, count: int) -> Iterator[int]:
        if self._replica and count > 1:
            with self._replica.no_sync():
                yield from range(1, count)
        else:
            yield from range(1, count)
        yield count

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _settle_buckets(self, image_size: int) -> None:
        """Make DDP regroup its gradients now, which it would do after its first step.

        Otherwise the first step after a resume would add up gradients in another order than the
        same step of an unbroken run.
        """
        network, shape = self._network, (self._micro_batch, image_size, image_size, 3)
        images = torch.zeros(shape, dtype=torch.uint8, device=self._world.device)
        labels = torch.zeros(self._micro_batch, dtype=torch.int64, device=self._world.device)
        before = [buffer.clone() for buffer in network.buffers()]
        for _ in range(2):
            self._loss(self._forward(images), labels).backward()
            self._optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)


def _replicate(
    module: nn.Module, spec: Ddp, world: World, *, accumulation: int, compiled: bool
) -> DistributedDataParallel | None:
    if world.size == 1:
        return None
    kind = DistributedDataParallel if compiled else EagerReplica
    replica = kind(
        module,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        **LOCAL_BUFFERS,
        gradient_as_bucket_view=True,
        static_graph=accumulation == 1,  # it does not work together with no_sync
        bucket_cap_mb=spec.bucket_megabytes,
    )
    if spec.gradient_compression == "bf16":
        replica.register_comm_hook(None, bf16_compress_hook)
    return replica
