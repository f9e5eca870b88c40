"""How fast the machines of a run are and how they are set up, reported before the first step.

measure times each rank and, with links, the connections; limits names those that are too slow;
nodes, with machine and clocks, describes each node; report prints it all. Nothing is decided here:
training continues even if a rank is slow.
"""

from pipeline.distributed.health.limits import describe_health, slow_ranks
from pipeline.distributed.health.measure import check_health
from pipeline.distributed.health.nodes import NodeReport, describe_nodes, node_lines
from pipeline.distributed.health.records import Link, RankHealth
from pipeline.distributed.health.report import report_machines

__all__ = [
    "Link",
    "NodeReport",
    "RankHealth",
    "check_health",
    "describe_health",
    "describe_nodes",
    "node_lines",
    "report_machines",
    "slow_ranks",
]
