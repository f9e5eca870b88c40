"""DeepSpeed as the engine: ZeRO stage 0, and stages 1 and 2, which partition the optimiser.

As far as DeepSpeed knows, everything is fp32: all engines share precision, accumulation, loss scale
and clipping. docs/engines.md explains its settings.
"""

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from pipeline.config.schema import DeepSpeed, Train
from pipeline.distributed.world import World
from pipeline.engines.base import BaseEngine, Trainable, is_compiled
from pipeline.engines.partition import ParameterPartition
from pipeline.optim.slots import Slots, optimizer_slots

BUCKET_MEGABYTES = 100.0
BYTES = 4
"""Of an element in fp32."""


def open_deepspeed(
    spec: DeepSpeed, trainable: Trainable, train: Train, *, micro_batch: int, world: World
) -> "DeepSpeedEngine":
    """Return the engine for the stage that `spec` names.

    Raises `ValueError` if DeepSpeed is not installed or cannot be imported.
    """
    kind = ZeroEngine if spec.zero_stage else DeepSpeedEngine
    return kind(spec, trainable, train, micro_batch=micro_batch, world=world)


class DeepSpeedEngine(BaseEngine):
    """See `Engine`. At stage 0 every rank has the optimiser's whole state."""

    def __init__(
        self, spec: DeepSpeed, trainable: Trainable, train: Train, *, micro_batch: int, world: World
    ) -> None:
        super().__init__(trainable, train, micro_batch=micro_batch, world=world)
        if is_compiled(train.compile, world.device):
            self._module.compile()
        # DeepSpeed cannot start with channels-last parameters, and stages 1 and 2 cannot have them.
        trainable.network.to(memory_format=torch.contiguous_format)
        self._engine = _initialize(
            self._module, trainable, _settings(spec, micro_batch, world), world
        )
        self._forward = self._engine
        if train.channels_last and spec.zero_stage == 0:
            trainable.network.to(memory_format=torch.channels_last)

    def _micro_batches(self, count: int) -> Iterator[int]:
        for number in range(1, count + 1):
            self._engine.set_gradient_accumulation_boundary(number == count)
            yield number

    def _backward(self, loss: torch.Tensor) -> None:
        self._engine.backward(loss)

    def _update(self) -> None:
        self._engine.step()


class ZeroEngine(DeepSpeedEngine):
    """See `Engine`. At stages 1 and 2 a rank has its part of each slot, and updates that part."""

    def __init__(
        self, spec: DeepSpeed, trainable: Trainable, train: Train, *, micro_batch: int, world: World
    ) -> None:
        optimizer, network = trainable.optimizer, trainable.network
        names = {parameter: name for name, parameter in network.named_parameters()}
        groups: list[list[nn.Parameter]] = [group["params"] for group in optimizer.param_groups]
        slots = optimizer_slots(optimizer, network)
        super().__init__(spec, trainable, train, micro_batch=micro_batch, world=world)
        self._reduces_once = spec.zero_stage == 2
        self._partitions = [
            ParameterPartition({names[each]: each for each in whole}, group["params"][0], world)
            for whole, group in zip(groups, optimizer.param_groups, strict=True)
        ]
        optimizer.state.clear()  # it has the slots of whole parameters
        for partition in self._partitions:
            optimizer.state[partition.own] = {
                slot: partition.cut_slot(tensors).clone() for slot, tensors in slots.items()
            }

    def _micro_batches(self, count: int) -> Iterator[int]:
        if self._reduces_once and count > 1:
            # Stage 2 would otherwise sum means over the ranks, which rounds unlike a mean of sums.
            with self._engine.coalesce_grad_reduction():
                yield from range(1, count + 1)
        else:
            yield from super()._micro_batches(count)

    def _gradients(self) -> list[torch.Tensor]:
        groups: dict[int, list[torch.Tensor]] = self._engine.optimizer.averaged_gradients
        return [gradient for group in groups.values() for gradient in group]

    def _all_reduce_sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._world.all_reduce_sum_(tensor)

    def _slots(self) -> Slots:
        slots: Slots = {}
        for partition in self._partitions:
            for slot, value in self._optimizer.state[partition.own].items():
                slots.setdefault(slot, {}).update(partition.gather_slot(value))
        return slots

    def _load_slots(self, saved: Slots) -> None:
        weights = dict(self._network.named_parameters())
        for partition in self._partitions:
            partition.own.copy_(partition.cut(weights))
            for slot, value in self._optimizer.state[partition.own].items():
                value.copy_(partition.cut_slot(saved[slot]))


def _settings(spec: DeepSpeed, micro_batch: int, world: World) -> dict[str, Any]:
    compressed = spec.gradient_compression == "bf16" and world.size > 1
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,  # `_micro_batches` says when ranks share gradients
        "gradient_clipping": 0.0,  # DeepSpeed's default is 1
        "communication_data_type": "bf16" if compressed else "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _zero_settings(spec),
        "timers": {"throughput": {"enabled": False}},  # synchronises the device in every step
    }


def _zero_settings(spec: DeepSpeed) -> dict[str, Any]:
    if spec.zero_stage == 0:
        return {"stage": 0}
    pairs = (spec.bucket_megabytes or BUCKET_MEGABYTES) * 1e6 / BYTES / 2
    elements = 2 * max(1, round(pairs))  # DeepSpeed asks for an even number
    return {
        "stage": spec.zero_stage,
        "reduce_bucket_size": elements,
        "allgather_bucket_size": elements,
        "overlap_comm": spec.overlap,
        "compute_grad_norm": False,  # asks the host in every step
    }


def _initialize(
    module: nn.Module, trainable: Trainable, settings: dict[str, Any], world: World
) -> Any:
    """Return DeepSpeed's engine for `module`, without its log messages."""
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    deepspeed = _import_deepspeed()
    _join_group(world)
    with _quiet(logging.getLogger("DeepSpeed")):
        return deepspeed.initialize(
            SimpleNamespace(device_rank=world.device.index or 0),  # by default, the local rank
            model=module,
            optimizer=trainable.optimizer,
            config=settings,
            dist_init_required=False,
        )[0]


def _import_deepspeed() -> Any:
    try:
        with warnings.catch_warnings(), _not_importable("mlflow"):  # an autotuner's, and slow
            warnings.simplefilter("ignore")
            import deepspeed
    except ImportError as error:
        raise ValueError(
            f"engine.name=deepspeed, but DeepSpeed cannot be imported ({error});"
            " run: pip install 'imagenet-pipeline[train]', or set engine.name=ddp"
        ) from error
    # DeepSpeed would compile its own collectives for CPUs, which takes a compiler and a minute.
    cast("Any", deepspeed).ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _join_group(world: World) -> None:
    """Give a single process the process group that DeepSpeed needs."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        atexit.register(dist.destroy_process_group)


@contextmanager
def _not_importable(name: str) -> Generator[None]:
    """Make `import name` fail in the block, unless `name` is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast("Any", None)
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def _quiet(logger: logging.Logger) -> Generator[None]:
    """Make `logger` print errors only, in the block."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
