"""Telling of the machines at the start of a run."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config.schema import Launch
from pipeline.distributed.health.limits import describe_health, slow_ones
from pipeline.distributed.health.measure import check_health
from pipeline.distributed.health.nodes import describe_nodes, node_lines
from pipeline.distributed.world import World


def tell_of_machines(
    world: World,
    launch: Launch,
    *,
    run_dir: Path,
    stage: Path | None,
    warn: Callable[[str], None],
) -> None:
    """Print how the nodes are set up and how fast they are; `warn` of those that are slow.

    All ranks must call this. Ranks that share the CPUs of one machine say nothing of interest.
    """
    if world.size == 1 or (world.device.type == "cpu" and world.local_size == world.size):
        return
    if launch.start_report:
        lines = node_lines(describe_nodes(world, run_dir, stage))
        if world.is_main:
            print("\n".join(lines), flush=True)
    if launch.preflight:
        healths = check_health(world)
        if world.is_main:
            print(describe_health(healths), flush=True)
            for sentence in slow_ones(healths):
                warn(sentence)
