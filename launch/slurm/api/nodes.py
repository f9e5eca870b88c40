"""Nodes: how much of a node a job may get, and the state of a running job's nodes."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from launch.slurm.api.cli import show

UNUSABLE = {"DOWN", "FAIL", "FAILING", "POWERED_DOWN", "POWERING_DOWN", "NOT_RESPONDING"}
ASLEEP = {"POWERED_DOWN", "POWERING_DOWN"}
CLOSED = (UNUSABLE - ASLEEP) | {"DRAIN", "INVALID_REG", "MAINT", "MAINTENANCE", "UNKNOWN"}
"""States of nodes that take no new jobs; SLURM wakes those that are asleep."""
FEATURE = re.compile(r"[^&|\[\]()*,]+")
COUNT = re.compile(r"\*[0-9]+")
ASKED_GPUS = re.compile(
    r"gpu(?:[:/](?P<kind>[^:,=]*[^:,=0-9][^:,=]*))?(?:[:=](?P<count>[0-9]+))?(?:,|$)"
)
GPUS = re.compile(r"(?:^|,)gpu(?::([^:,=]+))?:([0-9]+)")


@dataclass(frozen=True, slots=True)
class Node:
    """The resources that a job may get on a node."""

    name: str
    host: str
    """Its own host name."""
    address: str
    cpus: int
    memory_megabytes: int
    gpus: int
    features: frozenset[str]
    is_usable: bool
    """Whether a job that is queued now may get it once it is free."""
    resources: str = ""
    """Its `Gres`, such as gpu:a100:4."""

    def gpus_of(self, kind: str) -> int:
        """Return the number of its GPUs of a type; empty means any."""
        return gpus_in(self.resources, kind) if kind else self.gpus

    def meets(self, constraint: str) -> bool:
        """Whether its features meet a constraint; of one with alternatives or counts, some do."""
        asked = set(named_features(constraint))
        some = set(constraint) & set("|[]()*,")
        return bool(self.features & asked) if some else self.features >= asked

    @property
    def is_this_host(self) -> bool:
        """Whether this process runs there."""
        own = socket.gethostname()
        return self.host in (own, own.partition(".")[0]) or _is_loopback(self.address)


@dataclass(frozen=True, slots=True)
class JobNode:
    """A node of a running job."""

    name: str
    address: str
    states: frozenset[str]

    @property
    def is_usable(self) -> bool:
        return not self.states & UNUSABLE

    @property
    def is_lost(self) -> bool:
        """Whether SLURM has declared it down; a node that only stopped responding may come back."""
        return "DOWN" in self.states


def read_nodes(names: list[str]) -> list[JobNode]:
    """Return the nodes `names`, in their order."""
    records = {record["NodeName"]: record for record in show("node", ",".join(names))}
    return [job_node_from(records[name]) for name in names]


def job_node_from(record: dict[str, str]) -> JobNode:
    """Return a node's state from its record of `scontrol show node`."""
    states = frozenset(record["State"].replace("*", "+NOT_RESPONDING").split("+"))
    return JobNode(record["NodeName"], record["NodeAddr"], states)


def node_from(record: dict[str, str], *, max_cpus: int | None, max_memory: int | None) -> Node:
    """Return a node from its record; `max_cpus` and `max_memory` (MB) are its partition's."""
    seen, cpus = job_node_from(record), record.get("CPUEfctv", record["CPUTot"])
    features = record.get("AvailableFeatures", "(null)")
    return Node(
        name=seen.name,
        host=record.get("NodeHostName", seen.name),
        address=seen.address,
        cpus=_at_most(int(cpus), max_cpus),
        memory_megabytes=_at_most(int(record["RealMemory"]), max_memory),
        gpus=gpus_in(record.get("Gres", "")),
        features=frozenset(() if features == "(null)" else features.split(",")),
        is_usable=not seen.states & CLOSED,
        resources=record.get("Gres", ""),
    )


def named_features(constraint: str) -> list[str]:
    """Return the features that a constraint such as "a100&(ib|roce)" names."""
    return FEATURE.findall(COUNT.sub("", constraint))


def gpus_in(resources: str, kind: str = "") -> int:
    """Count the GPUs, or those of a type, in a node's `Gres`: gpu:a100:4(S:0-1),nvme:1."""
    found = GPUS.findall(resources)
    return sum(int(count) for each, count in found if kind in ("", each))


def gpus_asked(resources: str) -> tuple[str, int]:
    """Return the type and number of the GPUs in a job's `TresPerNode`; the type may be empty.

    SLURM writes gres:gpu:4, gres/gpu=4 or gres:gpu:a100:4, depending on its version.
    """
    found = ASKED_GPUS.search(resources)
    return (found["kind"] or "", int(found["count"] or 1)) if found else ("", 0)


def gpu_types(resources: str) -> set[str]:
    """Return the types of the GPUs in a node's `Gres`."""
    return {kind for kind, _ in GPUS.findall(resources) if kind}


def _at_most(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
