"""Folders of runs that were queued, as the project's own classes write them."""

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from launch.slurm.records.attempt import Attempt
from launch.slurm.records.history import append_outcome
from launch.slurm.records.submission import Layout, Submission
from launch.slurm.supervise.restart_policy import Outcome
from pipeline.config.schema import Slurm
from pipeline.tracking import events
from pipeline.tracking.jsonl import METRICS, Jsonl
from tests.slurm.cluster import Cluster, clean_environment
from tests.support.run_folders import config, hold_once

REPOSITORY = Path(__file__).parents[2]


def queued_run(runs_dir: Path, name: str, job_id: str, outcomes: Iterable[Outcome] = ()) -> Path:
    """A run called `name`, with a submission and what became of its attempts."""
    run_dir = hold_once(config(runs_dir, run_dir=runs_dir / name))
    submission = Submission(
        run_dir=run_dir.resolve(),
        number=1,
        layout=Layout(1, 0, 2, 1, 0),
        slurm=Slurm(),
        environment={},
        directory=Path.cwd(),
        python=sys.executable,
        submitted_at=time.time(),
        job_id=job_id,
    )
    submission.save()
    for outcome in outcomes:
        Attempt(run_dir, outcome.token).begin({"n1": "127.0.0.1", "n2": "127.0.0.1"})
        append_outcome(submission.folder, outcome)
    return run_dir


def tell(run_dir: Path, *told: events.Event) -> None:
    """Write events as a run does."""
    with Jsonl(run_dir / METRICS) as file:
        for event in told:
            file.on_event(event)


def began(run_dir: Path) -> events.RunStarted:
    return events.RunStarted("test", str(run_dir), 1, 1000, 10.0, 2, {}, {})


def progress(step: int) -> events.StepReport:
    return events.StepReport(step, step / 100, 2.5, 0.1, 1234.5, 1.0)


def failed_on(node: str, token: str) -> Outcome:
    return Outcome(token, "crashed", 0, error="RuntimeError: no device", node=node)


def run_program(
    program: str, *arguments: str | Path, cluster: Cluster | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program of launch/ to its end, on `cluster`, or where there is no SLURM at all."""
    return subprocess.run(
        command_of(program, *arguments),
        env=environment_of(cluster),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command_of(program: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(REPOSITORY / "launch" / program), *map(str, arguments)]


def environment_of(cluster: Cluster | None) -> dict[str, str]:
    if cluster is None:
        return clean_environment() | {"PATH": str(Path(sys.executable).parent)}
    return cluster.environment
