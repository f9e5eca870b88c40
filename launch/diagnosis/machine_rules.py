"""Rules about this machine, if training runs on it."""

import resource
from collections.abc import Callable
from dataclasses import dataclass

from launch.diagnosis.finding import Finding, costs_time, costs_work, fine
from pipeline.system.text import size

SHARED_MEMORY = "/dev/shm"  # noqa: S108
SHARED_MEMORY_BYTES = 1 << 30
OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about a machine."""

    gpus: int
    """As the driver reports them."""
    torch_gpus: int
    """GPUs that torch can use."""
    shared_memory_bytes: int | None
    """Free in /dev/shm; None if it is missing."""
    open_files: int
    """The hard limit: the pipeline raises the soft one."""
    locked_memory_bytes: int


def gpus(machine: Machine) -> Finding:
    value = f"{machine.torch_gpus} of {machine.gpus}"
    if machine.gpus == 0:
        return fine("GPUs", "none", "training here runs on the CPU")
    remedy = "see CUDA_VISIBLE_DEVICES, and whether the driver is recent enough for torch"
    if machine.torch_gpus == 0:
        return costs_work("GPUs", value, "torch cannot use any, and trains on the CPU", remedy)
    if machine.torch_gpus < machine.gpus:
        return costs_time("GPUs", value, "torch can only use some of them", remedy)
    return fine("GPUs", value, "torch can use all of them")


def shared_memory(machine: Machine) -> Finding:
    free = machine.shared_memory_bytes
    value = "missing" if free is None else f"{size(free)} free"
    if free is not None and free >= SHARED_MEMORY_BYTES:
        return fine(SHARED_MEMORY, value, "enough for the ranks of a node to exchange data")
    meaning = "NCCL exchanges data between the ranks of a node there, and fails if it is full"
    remedy = "delete files there; start a container with --shm-size=8g or --ipc=host"
    return costs_work(SHARED_MEMORY, value, meaning, remedy)


def open_files(machine: Machine) -> Finding:
    count = machine.open_files
    if count == resource.RLIM_INFINITY or count >= OPEN_FILES:
        value = "unlimited" if count == resource.RLIM_INFINITY else f"{count:,}"
        return fine("ulimit -Hn", value, "shards stay open between reads")
    meaning = "a dataset of many files is read more slowly, because few of them can stay open"
    return costs_time("ulimit -Hn", f"{count:,}", meaning, f"ask for a limit of {OPEN_FILES:,}")


def locked_memory(machine: Machine) -> Finding:
    limit = machine.locked_memory_bytes
    if limit == resource.RLIM_INFINITY:
        return fine("ulimit -l", "unlimited", "NCCL can pin the memory that it needs")
    meaning = "enough for the ranks of one machine; NCCL over InfiniBand would need more"
    return fine("ulimit -l", f"{limit // 1024:,} kB", meaning)


RULES: tuple[Callable[[Machine], Finding | None], ...] = (
    gpus,
    shared_memory,
    open_files,
    locked_memory,
)
