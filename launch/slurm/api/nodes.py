"""The nodes of a job: which are there, and at which address."""

from dataclasses import dataclass

from launch.slurm.api.cli import show

UNUSABLE = {"DOWN", "FAIL", "FAILING", "POWERED_DOWN", "POWERING_DOWN", "NOT_RESPONDING"}


@dataclass(frozen=True, slots=True)
class Node:
    """A node as SLURM sees it."""

    name: str
    address: str
    states: frozenset[str]

    @property
    def is_usable(self) -> bool:
        return not self.states & UNUSABLE

    @property
    def is_lost(self) -> bool:
        """Whether SLURM has given it up; one that does not answer for a while may come back."""
        return "DOWN" in self.states


def read_nodes(names: list[str]) -> list[Node]:
    """Return the nodes `names`, in their order."""
    records = {record["NodeName"]: record for record in show("node", ",".join(names))}
    return [node_from(records[name]) for name in names]


def node_from(record: dict[str, str]) -> Node:
    """Return a node from what `scontrol show node` tells of it."""
    states = frozenset(record["State"].replace("*", "+NOT_RESPONDING").split("+"))
    return Node(record["NodeName"], record["NodeAddr"], states)
