"""DeepSpeed as the engine: at ZeRO stage 0, and at 1 and 2, where ranks share out the optimiser.

It computes in fp32 as far as DeepSpeed knows: precision, accumulation, loss scale and clipping are
those of all engines. docs/engines.md says why its settings are what they are.
"""

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from pipeline.config.schema import DeepSpeed, Train
from pipeline.distributed.world import World
from pipeline.engines import Tensors, Trainee
from pipeline.engines.base import CommonEngine, is_compiled
from pipeline.engines.partition import ParameterPartition

BUCKET_MEGABYTES = 100.0
BYTES = 4
"""Of an element in fp32."""


def open_deepspeed(
    spec: DeepSpeed, trainee: Trainee, train: Train, *, micro_batch: int, world: World
) -> "DeepSpeedEngine":
    """Return the engine for the stage that `spec` names.

    Raises `ValueError` if DeepSpeed is not installed, or cannot be imported.
    """
    kind = ZeroEngine if spec.zero_stage else DeepSpeedEngine
    return kind(spec, trainee, train, micro_batch=micro_batch, world=world)


class DeepSpeedEngine(CommonEngine):
    """See `Engine`. At stage 0 every rank has all of the optimiser's state."""

    def __init__(
        self, spec: DeepSpeed, trainee: Trainee, train: Train, *, micro_batch: int, world: World
    ) -> None:
        super().__init__(trainee, train, micro_batch=micro_batch, world=world)
        if is_compiled(train.compile, world.device):
            self._module.compile()
        # DeepSpeed cannot start with channels-last parameters, and stages 1 and 2 cannot have them.
        trainee.network.to(memory_format=torch.contiguous_format)
        self._engine = _initialize(
            self._module, trainee, _settings(spec, micro_batch, world), world
        )
        self._forward = self._engine
        if train.channels_last and spec.zero_stage == 0:
            trainee.network.to(memory_format=torch.channels_last)

    def _turns(self, count: int) -> Iterator[int]:
        for number in range(1, count + 1):
            self._engine.set_gradient_accumulation_boundary(number == count)
            yield number

    def _backward(self, loss: torch.Tensor) -> None:
        self._engine.backward(loss)

    def _update(self) -> None:
        self._engine.step()


class ZeroEngine(DeepSpeedEngine):
    """See `Engine`. At stages 1 and 2 a rank has a part of the momentum, and updates that."""

    def __init__(
        self, spec: DeepSpeed, trainee: Trainee, train: Train, *, micro_batch: int, world: World
    ) -> None:
        optimizer = trainee.optimizer
        groups: list[list[nn.Parameter]] = [group["params"] for group in optimizer.param_groups]
        super().__init__(spec, trainee, train, micro_batch=micro_batch, world=world)
        self._reduces_each = spec.zero_stage == 2
        names = {parameter: name for name, parameter in trainee.network.named_parameters()}
        self._names = [[names[parameter] for parameter in group] for group in groups]
        self._partitions = [
            ParameterPartition(group, own["params"][0], world)
            for group, own in zip(groups, optimizer.param_groups, strict=True)
        ]
        optimizer.state.clear()  # it has the momentum of whole parameters
        for partition in self._partitions:
            optimizer.state[partition.own]["momentum_buffer"] = torch.zeros_like(partition.own)

    def _turns(self, count: int) -> Iterator[int]:
        if self._reduces_each and count > 1:
            # Else sums of means would take the place of a mean of sums, which rounds otherwise.
            with self._engine.coalesce_grad_reduction():
                yield from range(1, count + 1)
        else:
            yield from super()._turns(count)

    def _gradients(self) -> list[torch.Tensor]:
        groups: dict[int, list[torch.Tensor]] = self._engine.optimizer.averaged_gradients
        return [gradient for group in groups.values() for gradient in group]

    def _sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._world.all_reduce_sum_(tensor)

    def _momentum(self) -> Tensors:
        return {
            name: momentum
            for names, partition in zip(self._names, self._partitions, strict=True)
            for name, momentum in zip(names, partition.gather(self._buffer(partition)), strict=True)
        }

    def _load_optimizer(self, momentum: Tensors) -> None:
        weights = dict(self._network.named_parameters())
        for names, partition in zip(self._names, self._partitions, strict=True):
            partition.own.copy_(partition.cut([weights[name] for name in names]))
            self._buffer(partition).copy_(partition.cut([momentum[name] for name in names]))

    def _buffer(self, partition: ParameterPartition) -> torch.Tensor:
        return self._optimizer.state[partition.own]["momentum_buffer"]


def _settings(spec: DeepSpeed, micro_batch: int, world: World) -> dict[str, Any]:
    compressed = spec.gradient_compression == "bf16" and world.size > 1
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,  # `_turns` says when gradients are shared
        "gradient_clipping": 0.0,  # its default is 1
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


def _initialize(module: nn.Module, trainee: Trainee, settings: dict[str, Any], world: World) -> Any:
    """Return DeepSpeed's engine for `module`, started without its chatter."""
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    deepspeed = _import_deepspeed()
    _join_group(world)
    with _quiet(logging.getLogger("DeepSpeed")):
        return deepspeed.initialize(
            model=module, optimizer=trainee.optimizer, config=settings, dist_init_required=False
        )[0]


def _import_deepspeed() -> Any:
    try:
        with warnings.catch_warnings(), _not_importable("mlflow"):  # for an autotuner, for seconds
            warnings.simplefilter("ignore")
            import deepspeed
    except ImportError as error:
        raise ValueError(
            f"engine.name=deepspeed, but DeepSpeed cannot be imported ({error});"
            " run: pip install 'imagenet-pipeline[train]', or set engine.name=ddp"
        ) from error
    # Its own collectives on CPUs would be compiled now, which takes a compiler and a minute.
    cast("Any", deepspeed).ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _join_group(world: World) -> None:
    """Let a process that is alone have the process group that DeepSpeed asks for."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        atexit.register(dist.destroy_process_group)


@contextmanager
def _not_importable(name: str) -> Generator[None]:
    """Let `import name` fail in the block, unless it is imported already."""
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
    """Let `logger` tell of errors only."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
