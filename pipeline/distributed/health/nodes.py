"""Each node of a run as it is set up: devices, versions, network, cores, clock and space."""

import ctypes
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
    """Where one rank runs, in Linux's notation: 0-3,8."""

    rank: int
    cores: str
    numa_nodes: str
    gpu: str
    """The model; empty on the CPU."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is the same for all ranks of a node."""

    versions: str
    """Of torch, and on GPUs of driver, CUDA and NCCL."""
    network: str
    memory_available_bytes: int
    memory_bytes: int
    free_bytes: dict[str, int | None]
    """Of the run's folder, the stage and /dev/shm."""


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

    All ranks must call this; only rank 0 learns of the clocks. What cannot be found out is empty.
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
        assert known is not None, "the first rank of a node has found them out"
        places = tuple(all_places[rank] for rank in ranks)
        reports.append(NodeReport(name, places, known, offsets.get(ranks[0])))
    return reports


def rank_place(world: World) -> RankPlace:
    """Return where this rank runs."""
    cores = os.sched_getaffinity(0)
    gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else ""
    numa = machine.ranges(machine.numa_nodes(cores))
    return RankPlace(world.rank, machine.ranges(cores), numa, gpu)


def node_facts(world: World, run_dir: Path, stage: Path | None) -> NodeFacts:
    """Return what this rank finds out for all ranks of its node."""
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
    """Return the version of NVIDIA's driver as its own library tells it; empty without one."""
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
    """Return which network cards gloo and NCCL were told to use, and the RDMA ports there are.

    NCCL tells nobody but its log (NCCL_DEBUG=INFO) what it chose itself.
    """
    name = os.environ.get("GLOO_SOCKET_IFNAME", "")
    speed = machine.interface_speed(name)
    known = f"{name} ({speed})" if speed else name
    parts = [f"gloo over {known or 'the card that the host name leads to'}"]
    if gpu:
        chosen = [
            f"{variable}={os.environ[variable]}"
            for variable in ("NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_IB_DISABLE", "NCCL_NET")
            if variable in os.environ
        ]
        parts.append(f"NCCL told {' '.join(chosen)}" if chosen else "NCCL chooses")
    ports = machine.rdma_ports()
    return ", ".join([*parts, f"RDMA {', '.join(ports)}"] if ports else parts)


def node_lines(reports: Sequence[NodeReport]) -> list[str]:
    """Return two lines of text for each node."""
    return [line for report in reports for line in (_what_it_is(report), _what_it_has(report))]


def _what_it_is(report: NodeReport) -> str:
    ranks = machine.ranges({place.rank for place in report.places})
    models = [place.gpu for place in report.places if place.gpu]
    counted = [f"{models.count(model)} x {model}" for model in dict.fromkeys(models)]
    parts = [*counted, report.facts.versions, report.facts.network]
    if report.clock is not None:
        ahead, error = report.clock.milliseconds, report.clock.error_milliseconds
        parts.append(f"clock {ahead:+.2f} ms (within {error:.2f})")
    word = "ranks" if len(report.places) > 1 else "rank"
    return f"{report.name} ({word} {ranks}): {', '.join(parts)}"


def _what_it_has(report: NodeReport) -> str:
    facts = report.facts
    memory = f"{_gib(facts.memory_available_bytes)} of {_gib(facts.memory_bytes)}"
    free = [f"{name} {_gib(room)}" for name, room in facts.free_bytes.items()]
    return f"  {_cores(report.places)}; free: memory {memory}, {', '.join(free)}"


def _cores(places: Sequence[RankPlace]) -> str:
    """Return the cores of each rank, or of all at once where they share the same."""
    ranks_on: dict[str, set[int]] = defaultdict(set)
    for place in places:
        numa = f" (NUMA {place.numa_nodes})" if place.numa_nodes else ""
        ranks_on[f"cores {place.cores}{numa}"].add(place.rank)
    if len(ranks_on) == 1:
        return next(iter(ranks_on))
    return ", ".join(f"rank {machine.ranges(ranks)}: {on}" for on, ranks in ranks_on.items())


def _gib(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 2**30:,.0f} GiB"
