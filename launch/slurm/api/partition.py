"""A partition of a cluster, and the machines in it."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from launch.slurm.api.nodes import UNUSABLE, node_from
from pipeline.config.schema.slurm import minutes_of

ASLEEP = {"POWERED_DOWN", "POWERING_DOWN"}
CLOSED = (UNUSABLE - ASLEEP) | {"DRAIN", "INVALID_REG", "MAINT", "MAINTENANCE", "UNKNOWN"}
"""States of nodes that no new job gets; SLURM wakes those that are asleep."""
GPUS = re.compile(r"(?:^|,)gpu(?::[^:,=]+)?:([0-9]+)")


@dataclass(frozen=True, slots=True)
class Node:
    """One node: how much of it a job may get."""

    name: str
    host: str
    """The name that it has itself."""
    address: str
    cpus: int
    memory_megabytes: int
    gpus: int
    features: frozenset[str]
    is_usable: bool
    """Whether a job that is queued now may get it once it is free."""

    @property
    def is_this_host(self) -> bool:
        """Whether this process runs there."""
        own = socket.gethostname()
        return self.host in (own, own.partition(".")[0]) or _is_loopback(self.address)


@dataclass(frozen=True, slots=True)
class Partition:
    """A queue, the nodes that it serves, and its limits; None is no limit."""

    name: str
    is_default: bool
    state: str
    max_minutes: int | None
    default_minutes: int | None
    """The limit of a job that names none; None for the greatest one."""
    min_nodes: int
    max_nodes: int | None
    priority_tier: int
    preempt_mode: str
    grace_seconds: int
    nodes: tuple[Node, ...]

    @property
    def is_up(self) -> bool:
        """Whether it takes jobs and starts them."""
        return self.state == "UP"

    @property
    def node_names(self) -> list[str]:
        return [node.name for node in self.nodes]

    @property
    def usable_nodes(self) -> int:
        """How many nodes a job that is queued now may get once they are free."""
        return sum(node.is_usable for node in self.nodes)

    @property
    def cpus_per_node(self) -> int:
        """Those of the least node."""
        return min((node.cpus for node in self.nodes), default=0)

    @property
    def memory_megabytes(self) -> int:
        """That of the least node."""
        return min((node.memory_megabytes for node in self.nodes), default=0)

    @property
    def gpus_per_node(self) -> int:
        """Those of the least node that has any; 0 if none has."""
        return min((node.gpus for node in self.nodes if node.gpus), default=0)

    @property
    def is_this_host(self) -> bool:
        """Whether there is no other machine in it."""
        return all(node.is_this_host for node in self.nodes)


def partition_from(record: dict[str, str], nodes: list[dict[str, str]]) -> Partition:
    """Return a partition from what `scontrol show` tells of it, and of all nodes."""
    name = record["PartitionName"]
    members = [node for node in nodes if name in node.get("Partitions", "").split(",")]
    return Partition(
        name=name,
        is_default=record["Default"] == "YES",
        state=record["State"],
        max_minutes=_minutes(record["MaxTime"]),
        default_minutes=_minutes(record["DefaultTime"]),
        min_nodes=_number(record["MinNodes"]) or 0,
        max_nodes=_number(record["MaxNodes"]),
        priority_tier=_number(record["PriorityTier"]) or 0,
        preempt_mode=record["PreemptMode"],
        grace_seconds=_number(record["GraceTime"]) or 0,
        nodes=tuple(_machine_from(node, record) for node in members),
    )


def gpus_in(resources: str) -> int:
    """Count the GPUs in a node's `Gres`, such as gpu:a100:4(S:0-1),nvme:1."""
    return sum(int(count) for count in GPUS.findall(resources))


def _machine_from(record: dict[str, str], partition: dict[str, str]) -> Node:
    node, cpus = node_from(record), record.get("CPUEfctv", record["CPUTot"])
    most_memory = _number(partition.get("MaxMemPerNode", ""))
    features = record.get("AvailableFeatures", "(null)")
    return Node(
        name=node.name,
        host=record.get("NodeHostName", node.name),
        address=node.address,
        cpus=_at_most(int(cpus), _number(partition.get("MaxCPUsPerNode", ""))),
        memory_megabytes=_at_most(int(record["RealMemory"]), most_memory),
        gpus=gpus_in(record.get("Gres", "")),
        features=frozenset(() if features == "(null)" else features.split(",")),
        is_usable=not node.states & CLOSED,
    )


def _at_most(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)


def _number(text: str) -> int | None:
    """Return a number; None for UNLIMITED and the like."""
    return int(text) if text.isdecimal() else None


def _minutes(text: str) -> int | None:
    """Return a time limit; None for UNLIMITED and NONE."""
    try:
        return minutes_of(text)
    except ValueError:
        return None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
