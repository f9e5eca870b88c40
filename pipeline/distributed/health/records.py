"""The measured figures of one rank. A gigabyte has 1e9 bytes."""

import os
import platform
from dataclasses import dataclass
from typing import Literal

Route = Literal["within a node", "between nodes", "between nodes, all ranks at once"]


@dataclass(frozen=True, slots=True)
class Link:
    """A link from one rank to another; links of the same route should be equally fast."""

    route: Route
    source: int
    target: int
    gigabytes_per_second: float


@dataclass(frozen=True, slots=True)
class RankHealth:
    """How fast one rank computes and receives data."""

    rank: int
    host: str
    local_rank: int
    device: Literal["GPU", "CPU"]
    matmul_teraflops: float
    """bf16 on a GPU, fp32 on the CPU."""
    host_to_device_gigabytes_per_second: float | None
    """None on the CPU."""
    all_reduce_gigabytes_per_second: float | None
    """Bus bandwidth; None with a single rank."""
    links: tuple[Link, ...]
    """The links that end at this rank."""


def host_name() -> str:
    """Return SLURM's name of this node, as used to exclude it from a job, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()
