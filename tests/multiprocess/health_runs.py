"""A program for ranks that measure themselves and each other, and write what they find."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.distributed.health import (
    check_health,
    describe_health,
    describe_nodes,
    node_lines,
    slow_ranks,
)
from pipeline.distributed.world import World, join_world


def main(arguments: Sequence[str]) -> None:
    """Measure, with arguments FOLDER SECONDS RANKS_PER_NODE; write FOLDER/<rank>.json."""
    folder, seconds, gpus = Path(arguments[0]), float(arguments[1]), int(arguments[2])
    with join_world() as world:
        os.environ["SLURMD_NODENAME"] = f"node{world.rank // gpus}"
        found = measure(world, folder, seconds)
        (folder / f"{world.rank}.json").write_text(json.dumps(found))


def measure(world: World, folder: Path, seconds: float) -> dict[str, object]:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    world.gather(None)
    started = time.monotonic()
    healths = check_health(world, seconds)
    taken = time.monotonic() - started
    assert torch.equal(torch.get_rng_state(), before)
    reports = describe_nodes(world, folder / "run", None)
    return {
        "seconds": taken,
        "healths": [asdict(health) for health in healths],
        "said": [describe_health(healths), *slow_ranks(healths)],
        "reports": [asdict(report) for report in reports],
        "lines": node_lines(reports),
    }
