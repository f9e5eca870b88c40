"""Describes each node of a run: devices, versions, network, cores, clock and free space."""

import ctypes
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.cuda.nccl import version as nccl_version

from pipeline.distributed.health import machine
from pipeline.distributed.health.clocks import ClockOffset, clock_offsets
from pipeline.distributed.health.records import host_name
from pipeline.distributed.world import World


@dataclass(frozen=True, slots=True)
class RankPlace:
    """The cores, NUMA nodes and GPU of one rank; numbers in Linux's notation: 0-3,8."""

    rank: int
    cores: str
    numa_nodes: str
    gpu: str
    """Model name; empty on the CPU."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is the same for all ranks of a node."""

    versions: str
    """torch; on GPUs also driver, CUDA and NCCL."""
    network: str
    memory_available_bytes: int
    memory_bytes: int
    free_bytes: dict[str, int | None]
    """For the run folder, the stage and /dev/shm."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node of a run."""

    name: str
    places: tuple[RankPlace, ...]
    facts: NodeFacts
    clock: ClockOffset | None
    """None on ranks other than 0."""


def describe_nodes(world: World, run_dir: Path, stage: Path | None) -> list[NodeReport]:
    """Return a report of each node, in the order of their first ranks.

    A collective; only rank 0 gets the clock offsets. Unknown values are empty.
    """
    ranks_of: dict[str, list[int]] = defaultdict(list)
    for rank, name in enumerate(world.gather(host_name())):
        ranks_of[name].append(rank)
    first = [ranks[0] for ranks in ranks_of.values()]
    facts = node_facts(world, run_dir, stage) if world.rank in first else None
    offsets = clock_offsets(world, first)
    all_places, all_facts = world.gather(rank_place(world)), world.gather(facts)
    reports: list[NodeReport] = []
    for name, ranks in ranks_of.items():
        known = all_facts[ranks[0]]
        assert known is not None, "the first rank of a node collects them"
        places = tuple(all_places[rank] for rank in ranks)
        reports.append(NodeReport(name, places, known, offsets.get(ranks[0])))
    return reports


def rank_place(world: World) -> RankPlace:
    """Return the cores, NUMA nodes and GPU of this rank."""
    cores = os.sched_getaffinity(0)
    gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else ""
    numa = machine.format_ranges(machine.numa_nodes(cores))
    return RankPlace(world.rank, machine.format_ranges(cores), numa, gpu)


def node_facts(world: World, run_dir: Path, stage: Path | None) -> NodeFacts:
    """Return the facts of this node; its first rank collects them for all."""
    gpu = world.device.type == "cuda"
    available, total = machine.memory()
    paths = {"run_dir": run_dir, "stage": stage, "/dev/shm": Path("/dev/shm")}  # noqa: S108
    return NodeFacts(
        versions=gpu_versions() if gpu else f"torch {torch.__version__}",
        network=network(gpu=gpu),
        memory_available_bytes=available,
        memory_bytes=total,
        free_bytes={name: machine.free_bytes(path) for name, path in paths.items() if path},
    )


def gpu_versions() -> str:
    """Return the versions of torch, driver, CUDA and NCCL."""
    nccl = ".".join(map(str, nccl_version()))
    driver, cuda = driver_version() or "unknown", torch.version.cuda
    return f"torch {torch.__version__}, driver {driver}, CUDA {cuda}, NCCL {nccl}"


def driver_version() -> str:
    """Return the version of NVIDIA's driver from its own library; empty without a driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    if library.nvmlInit_v2():
        return ""
    text = ctypes.create_string_buffer(96)
    failed = library.nvmlSystemGetDriverVersion(text, len(text))
    library.nvmlShutdown()
    return "" if failed else text.value.decode()


def network(*, gpu: bool) -> str:
    """Return the network cards configured for gloo and NCCL, and the RDMA ports of the node.

    NCCL reports its own choice only in its log (NCCL_DEBUG=INFO).
    """
    name = os.environ.get("GLOO_SOCKET_IFNAME", "")
    speed = machine.interface_speed(name)
    known = f"{name} ({speed})" if speed else name
    parts = [f"gloo over {known or 'the network card of the host name'}"]
    if gpu:
        chosen = [
            f"{variable}={os.environ[variable]}"
            for variable in ("NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_IB_DISABLE", "NCCL_NET")
            if variable in os.environ
        ]
        parts.append(f"NCCL with {' '.join(chosen)}" if chosen else "NCCL chooses")
    ports = machine.rdma_ports()
    return ", ".join([*parts, f"RDMA {', '.join(ports)}"] if ports else parts)


def node_lines(reports: Sequence[NodeReport]) -> list[str]:
    """Return two lines for each node: its setup, and its cores and free space."""
    return [line for report in reports for line in (_setup(report), _resources(report))]


def clocks_ahead(reports: Sequence[NodeReport]) -> dict[str, float]:
    """Return how many seconds each clock is certainly ahead of rank 0's; negative is behind."""
    ahead: dict[str, float] = {}
    for report in reports:
        if report.clock is not None:
            milliseconds, error = report.clock.milliseconds, report.clock.error_milliseconds
            certain = max(0.0, abs(milliseconds) - error) / 1000
            ahead[report.name] = math.copysign(certain, milliseconds)
    return ahead


def _setup(report: NodeReport) -> str:
    ranks = machine.format_ranges({place.rank for place in report.places})
    models = [place.gpu for place in report.places if place.gpu]
    counted = [f"{models.count(model)} x {model}" for model in dict.fromkeys(models)]
    parts = [*counted, report.facts.versions, report.facts.network]
    if report.clock is not None:
        ahead, error = report.clock.milliseconds, report.clock.error_milliseconds
        parts.append(f"clock {ahead:+.2f} ms (within {error:.2f})")
    word = "ranks" if len(report.places) > 1 else "rank"
    return f"{report.name} ({word} {ranks}): {', '.join(parts)}"


def _resources(report: NodeReport) -> str:
    facts = report.facts
    memory = f"{_gib(facts.memory_available_bytes)} of {_gib(facts.memory_bytes)}"
    free = [f"{name} {_gib(room)}" for name, room in facts.free_bytes.items()]
    return f"  {_cores(report.places)}; free: memory {memory}, {', '.join(free)}"


def _cores(places: Sequence[RankPlace]) -> str:
    """Return the cores of each rank; only once if all ranks share the same."""
    ranks_on: dict[str, set[int]] = defaultdict(set)
    for place in places:
        numa = f" (NUMA {place.numa_nodes})" if place.numa_nodes else ""
        ranks_on[f"cores {place.cores}{numa}"].add(place.rank)
    if len(ranks_on) == 1:
        return next(iter(ranks_on))
    return ", ".join(f"rank {machine.format_ranges(ranks)}: {on}" for on, ranks in ranks_on.items())


def _gib(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 2**30:,.0f} GiB"
