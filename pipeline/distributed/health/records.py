"""The figures of one rank, as they were measured. A gigabyte has 1e9 bytes."""

import os
import platform
from dataclasses import dataclass
from typing import Literal

Route = Literal["within a node", "between nodes", "between nodes, all ranks at once"]


@dataclass(frozen=True, slots=True)
class Link:
    """The way from one rank to another; links of one route should be equally fast."""

    route: Route
    source: int
    target: int
    gigabytes_per_second: float


@dataclass(frozen=True, slots=True)
class RankHealth:
    """How fast one rank computes and is reached."""

    rank: int
    host: str
    local_rank: int
    device: Literal["GPU", "CPU"]
    matmul_teraflops: float
    """bf16 on a GPU, fp32 on the CPU."""
    host_to_device_gigabytes_per_second: float | None
    """None on the CPU."""
    all_reduce_gigabytes_per_second: float | None
    """Bus bandwidth; None where one rank is alone."""
    links: tuple[Link, ...]
    """The links that end at this rank."""


def host_name() -> str:
    """Return the name that this node goes by: SLURM's, which a job is told to avoid, or its own."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()
