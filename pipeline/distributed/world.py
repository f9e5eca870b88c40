"""This process's rank, and its communication with the others. No other module asks for a rank."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from pipeline.distributed.devices import device_index, shared_gpus
from pipeline.distributed.launchers import expect_ranks
from pipeline.distributed.rendezvous import meet

T = TypeVar("T")

CPU = torch.device("cpu")

START_TIMEOUT_MINUTES = 30
"""Timeout of collectives: rank 0 may build an index or a graph while the others wait."""

STAGING_TIMEOUT_HOURS = 12
"""Timeout for one node to copy its data while the others wait."""

CORES = "RANK_CORES"
"""Environment variable: number of cores reserved for this rank, if its launcher knows it."""


@dataclass(frozen=True, slots=True)
class World:
    """Rank, world size and device of this process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """(rank, world size), for functions that divide work between ranks."""
        return self.rank, self.size

    @property
    def cpu_threads(self) -> int:
        """This rank's share of the cores that the ranks of this machine may use."""
        own = os.environ.get(CORES, "")
        if own.isdecimal():
            return max(1, int(own))
        return max(1, len(os.sched_getaffinity(0)) // self.local_size)

    def all_reduce_sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all ranks, in place, on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    @torch.no_grad()
    def all_reduce_mean_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its mean over all ranks, in a single collective."""
        if self.size == 1 or not tensors:
            return
        flat = self.all_reduce_sum_(torch.cat([tensor.flatten() for tensor in tensors])) / self.size
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast_from_main(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0; return its value, or raise its error, on every rank."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except Exception as error:  # noqa: BLE001 - raised again on every rank
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    @contextmanager
    def long_barrier(self) -> Generator[None]:
        """Let each rank take hours over the block; then wait for the slowest rank."""
        if self.size == 1:
            yield
            return
        # A separate group has its own timeout; the block must not use the default group.
        group = dist.new_group(backend="gloo", timeout=timedelta(hours=STAGING_TIMEOUT_HOURS))
        assert isinstance(group, dist.ProcessGroup), "every rank belongs to it"
        yield
        dist.barrier(group)

    def all_reduce_max_async(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Start computing the maximum of each value over all ranks, in the background on the CPU.

        Every rank must call this. The returned function waits for the maxima and returns them.
        """
        assert self.size > 1
        tensor = torch.tensor(values, dtype=torch.int64)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=True)
        assert work is not None, "this rank belongs to the group"

        def finish() -> list[int]:
            work.wait()
            return [int(value) for value in tensor]

        return finish

    def expect_answers_within(self, minutes: float) -> None:
        """Let new collectives fail if a rank does not take part within `minutes`."""
        if self.size == 1:
            return
        timeout = timedelta(minutes=minutes)
        if hasattr(dist, "set_timeout"):  # from torch 2.15 on
            dist.set_timeout(timeout)
        else:
            dist.distributed_c10d._set_pg_timeout(timeout)  # pyright: ignore[reportPrivateUsage, reportDeprecated]

    def gather(self, value: T) -> list[T]:
        """Return every rank's `value`, in rank order."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values


@contextmanager
def join_world() -> Generator[World]:
    """Yield the world that RANK, WORLD_SIZE, MASTER_ADDR ... describe; by default one rank.

    Raises `ValueError` if other processes of a parallel launcher would train alone, too, or if two
    ranks would share a GPU.
    """
    expect_ranks(os.environ)
    rank, size, local_rank, local_size = (
        _environment_integer(name, default)
        for name, default in (
            ("RANK", 0),
            ("WORLD_SIZE", 1),
            ("LOCAL_RANK", 0),
            ("LOCAL_WORLD_SIZE", 1),
        )
    )
    device = _pick_device(local_rank, local_size)
    world = World(rank, size, local_rank, local_size, device)
    if size == 1:
        yield world
        return
    timeout = timedelta(minutes=START_TIMEOUT_MINUTES)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=meet(rank, size, timeout),
        rank=rank,
        world_size=size,
        timeout=timeout,
    )
    if fault := shared_gpus(world.gather(_gpu_uuid(device))):
        raise ValueError(fault)
    yield world
    dist.destroy_process_group()  # not after an error: NCCL might wait for lost ranks


def set_up_torch(*, deterministic: bool, world: World) -> None:
    """Choose fast kernels, or deterministic ones."""
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:  # only then: the call loads the compiler, which takes seconds
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if world.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(world.cpu_threads)


def _environment_integer(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"environment variable {name}={text!r} must be a whole number")
    return int(text)


def _pick_device(local_rank: int, local_size: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", device_index(torch.cuda.device_count(), local_rank, local_size))
    torch.cuda.set_device(device)
    return device


def _gpu_uuid(device: torch.device) -> str:
    """Return the identity of a GPU among those of all nodes; empty for a CPU."""
    if device.type != "cuda":
        return ""
    return str(cast("Any", torch.cuda.get_device_properties(device)).uuid)
