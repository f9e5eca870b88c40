"""A sweep on this machine: its points are trained one after another."""

import signal
from collections.abc import Sequence

from launch.local.preflight import Preflight, check, check_machine
from launch.local.ranks import run_ranks
from launch.sweep.points import Sweep, SweepPoint
from pipeline.system.exit_codes import STOPPED

SIGNALLED = 128


def check_points(points: Sequence[SweepPoint], *, ranks: int, gpus: int) -> list[Preflight]:
    """Return the preflight of each point; raise `ValueError` that names the first wrong one."""
    checked: list[Preflight] = []
    for point in points:
        try:
            check_machine(point.config, gpus=gpus)
            like = checked[-1] if checked else None
            checked.append(check(point.config, ranks=ranks, like=like))
        except ValueError as error:
            raise ValueError(f"{point.name}: {error}") from error
    return checked


def train_points(sweep: Sweep, command: Sequence[str], *, ranks: int, gpus: int) -> int:
    """Train the unfinished points by `command` with their settings; return the exit code.

    After a failure the next point still starts, and the first failure's code is returned at the
    end. A point that was asked to stop ends the sweep, even if it finished first.
    """
    sweep.save()
    first_code, asked = 0, list[signal.Signals]()
    for point in sweep.points:
        if point.is_finished:
            print(f"{point.name}: already finished", flush=True)
            continue
        print(f"{point.name}: {point.run_dir}", flush=True)
        placed = [f"run_dir={point.run_dir}", f"tracking.group={sweep.folder.name}"]
        module = ["pipeline.train", *command, *point.overrides, *placed]
        # In separate processes: one training leaves nothing behind for the next.
        code = run_ranks(module, ranks=ranks, cpu_only=gpus == 0, on_stop=asked.append)
        first_code = first_code or code
        if asked or code == STOPPED or code > SIGNALLED:
            return code or SIGNALLED + asked[0]
    return first_code
