"""Rules about the machine that trains, where that is this one."""

import resource
from collections.abc import Callable
from dataclasses import dataclass

from launch.diagnosis.finding import Finding, costs_time, costs_work, fine

SHARED_MEMORY = "/dev/shm"  # noqa: S108
SHARED_MEMORY_BYTES = 1 << 30
OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to know of a machine."""

    gpus: int
    """Those that the driver shows."""
    torch_gpus: int
    """Those that torch may use."""
    shared_memory_bytes: int | None
    """Free in /dev/shm; None if it is missing."""
    open_files: int
    """The hard limit: the pipeline raises its soft one."""
    locked_memory_bytes: int


def gpus(machine: Machine) -> Finding:
    value = f"{machine.torch_gpus} of {machine.gpus}"
    if machine.gpus == 0:
        return fine("GPUs", "none", "training here runs on the CPU")
    remedy = "see CUDA_VISIBLE_DEVICES, and whether the driver is recent enough for torch"
    if machine.torch_gpus == 0:
        return costs_work("GPUs", value, "torch can use none, and trains on the CPU", remedy)
    if machine.torch_gpus < machine.gpus:
        return costs_time("GPUs", value, "torch uses only some of those there are", remedy)
    return fine("GPUs", value, "torch can use all of them")


def shared_memory(machine: Machine) -> Finding:
    free = machine.shared_memory_bytes
    value = "missing" if free is None else f"{free / 1e9:,.1f} GB free"
    if free is not None and free >= SHARED_MEMORY_BYTES:
        return fine(SHARED_MEMORY, value, "ranks on one node have room to exchange data")
    meaning = "NCCL exchanges data between the ranks of a node there, and fails without room"
    remedy = "delete what lies there; give a container --shm-size=8g or --ipc=host"
    return costs_work(SHARED_MEMORY, value, meaning, remedy)


def open_files(machine: Machine) -> Finding:
    count = machine.open_files
    if count == resource.RLIM_INFINITY or count >= OPEN_FILES:
        value = "unlimited" if count == resource.RLIM_INFINITY else f"{count:,}"
        return fine("ulimit -Hn", value, "shards stay open between reads")
    meaning = "of a dataset of many files few stay open, so that reading them takes longer"
    return costs_time("ulimit -Hn", f"{count:,}", meaning, f"ask for a limit of {OPEN_FILES:,}")


def locked_memory(machine: Machine) -> Finding:
    limit = machine.locked_memory_bytes
    if limit == resource.RLIM_INFINITY:
        return fine("ulimit -l", "unlimited", "NCCL may pin the memory that it needs")
    meaning = "NCCL over InfiniBand needs more; ranks of one machine alone do not"
    return fine("ulimit -l", f"{limit // 1024:,} kB", meaning)


RULES: tuple[Callable[[Machine], Finding | None], ...] = (
    gpus,
    shared_memory,
    open_files,
    locked_memory,
)
