"""Reports the machines at the start of a run."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config.schema import Launch
from pipeline.distributed.health.limits import describe_health, slow_ranks
from pipeline.distributed.health.measure import check_health
from pipeline.distributed.health.nodes import clocks_ahead, describe_nodes, node_lines
from pipeline.distributed.world import World
from pipeline.system.clocks import wrong_clocks


def report_machines(
    world: World,
    launch: Launch,
    *,
    run_dir: Path,
    stage: Path | None,
    warn: Callable[[str], None],
) -> None:
    """Print the setup and speed of the nodes; call `warn` for each that is slow or off.

    A collective. It skips ranks that share the CPUs of one machine: their speeds mean nothing.
    """
    if world.size == 1 or (world.device.type == "cpu" and world.local_size == world.size):
        return
    if launch.start_report:
        reports = describe_nodes(world, run_dir, stage)
        if world.is_main:
            print("\n".join(node_lines(reports)), flush=True)
            for sentence in wrong_clocks(clocks_ahead(reports)):
                warn(sentence)
    if launch.preflight:
        healths = check_health(world)
        if world.is_main:
            print(describe_health(healths), flush=True)
            for sentence in slow_ranks(healths):
                warn(sentence)
