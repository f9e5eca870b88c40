"""What a run tells of its machines before the first step: how fast each is, and how it is set up.

Nothing here decides anything: what is slow is named, and the training goes on.
"""

from pipeline.distributed.health.limits import describe_health, slow_ones
from pipeline.distributed.health.measure import check_health
from pipeline.distributed.health.nodes import NodeReport, describe_nodes, node_lines
from pipeline.distributed.health.records import Link, RankHealth
from pipeline.distributed.health.report import tell_of_machines

__all__ = [
    "Link",
    "NodeReport",
    "RankHealth",
    "check_health",
    "describe_health",
    "describe_nodes",
    "node_lines",
    "slow_ones",
    "tell_of_machines",
]
