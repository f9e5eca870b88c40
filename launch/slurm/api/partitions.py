"""Partitions of a cluster: their nodes and limits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from launch.slurm.api.cli import show
from launch.slurm.api.nodes import Node, gpus_asked, node_from
from pipeline.config.schema.slurm import minutes_of


@dataclass(frozen=True, slots=True)
class Partition:
    """A queue, its nodes and its limits; a limit of None is unlimited."""

    name: str
    is_default: bool
    state: str
    max_minutes: int | None
    default_minutes: int | None
    """The limit of a job that sets none; None means `max_minutes`."""
    min_nodes: int
    max_nodes: int | None
    priority_tier: int
    preempt_mode: str
    grace_seconds: int
    nodes: tuple[Node, ...]

    @property
    def is_up(self) -> bool:
        """Whether it accepts jobs and starts them."""
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
        """CPUs of its smallest node."""
        return min((node.cpus for node in self.nodes), default=0)

    @property
    def memory_megabytes(self) -> int:
        """Memory of its smallest node."""
        return min((node.memory_megabytes for node in self.nodes), default=0)

    @property
    def gpus_per_node(self) -> int:
        """The fewest GPUs of a node with GPUs; 0 if no node has any."""
        return min((node.gpus for node in self.nodes if node.gpus), default=0)

    @property
    def is_this_host(self) -> bool:
        """Whether all of its nodes are this machine."""
        return all(node.is_this_host for node in self.nodes)


def read_partitions() -> dict[str, Partition]:
    """Return the cluster's partitions by name."""
    nodes = show("node")
    partitions = (partition_from(record, nodes) for record in show("partition"))
    return {partition.name: partition for partition in partitions}


def fitting_nodes(record: Mapping[str, str]) -> list[set[str]]:
    """Return the nodes of each of a job's partitions on which it may run, also those that are down.

    `record` is that of `scontrol show job`.
    """
    names = record["Partition"].split(",")
    return [
        {node.name for node in partition.nodes if fits(node, record)}
        for partition in read_partitions().values()
        if partition.name in names
    ]


def fits(node: Node, record: Mapping[str, str]) -> bool:
    """Whether a node has the features and GPUs that a job with this `record` asks for."""
    features = record.get("Features", "(null)")
    kind, gpus = gpus_asked(record.get("TresPerNode", ""))
    return node.gpus_of(kind) >= gpus and (features == "(null)" or node.meets(features))


def in_common(partitions: Sequence[Partition]) -> Partition:
    """Return the partitions as one: the nodes of all, and the limits that hold in each."""
    first = partitions[0]
    if len(partitions) == 1:
        return first
    nodes = {node.name: node for each in partitions for node in each.nodes}
    defaults = [each.default_minutes or each.max_minutes for each in partitions]
    return replace(
        first,
        name=",".join(each.name for each in partitions),
        max_minutes=_least(each.max_minutes for each in partitions),
        default_minutes=_least(defaults),
        min_nodes=max(each.min_nodes for each in partitions),
        max_nodes=_least(each.max_nodes for each in partitions),
        nodes=tuple(nodes.values()),
    )


def partition_from(record: dict[str, str], nodes: list[dict[str, str]]) -> Partition:
    """Return a partition from its record of `scontrol show`, and those of all nodes."""
    name = record["PartitionName"]
    members = [node for node in nodes if name in node.get("Partitions", "").split(",")]
    max_cpus = _number(record.get("MaxCPUsPerNode", ""))
    max_memory = _number(record.get("MaxMemPerNode", ""))
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
        nodes=tuple(node_from(each, max_cpus=max_cpus, max_memory=max_memory) for each in members),
    )


def limit_text(minutes: int | None) -> str:
    """Return a time limit as SLURM writes it."""
    if minutes is None:
        return "unlimited"
    hours, rest = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02}:{rest:02}:00"


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _number(text: str) -> int | None:
    """Return a number; None for UNLIMITED and the like."""
    return int(text) if text.isdecimal() else None


def _minutes(text: str) -> int | None:
    """Return a time limit; None for UNLIMITED and NONE."""
    try:
        return minutes_of(text)
    except ValueError:
        return None
