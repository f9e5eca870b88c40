"""Run folders as the project's own classes write them, and its programs as a user runs them."""

import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from launch.slurm.records.attempt import Attempt
from launch.slurm.records.history import Outcome, append_outcome
from launch.slurm.records.submission import JobLayout, Submission
from pipeline.config.schema import Slurm
from tests.slurm.cluster import Cluster, clean_environment
from tests.support.run_folders import config, hold_once

REPOSITORY = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from pipeline.runs.folder import hold_run_folder
from tests.support.run_folders import config
run_dir = Path(sys.argv[1])
with hold_run_folder(config(run_dir.parent, run_dir=run_dir)):
    print("held", flush=True)
    time.sleep(300)
"""


def queued_run(runs_dir: Path, name: str, job_id: str, outcomes: Iterable[Outcome] = ()) -> Path:
    """A run called `name`, with a submission and the outcomes of its attempts."""
    run_dir = hold_once(config(runs_dir, run_dir=runs_dir / name))
    submission = Submission(
        run_dir=run_dir.resolve(),
        number=1,
        layout=JobLayout(1, 0, 2, 1, 0),
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


@contextmanager
def held(run_dir: Path) -> "Generator[subprocess.Popen[str]]":
    """A process that locks a run as training does; SIGTERM ends it."""
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def failed_on(node: str, token: str) -> Outcome:
    return Outcome(token, "crashed", 0, error="RuntimeError: no device", node=node)


def run_program(
    program: str, *arguments: object, cluster: Cluster | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program of launch/ to its end, on `cluster` or on a machine without SLURM."""
    return subprocess.run(
        command_of(program, *arguments),
        env=environment_of(cluster),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command_of(program: str, *arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "launch" / program), *map(str, arguments)]


def environment_of(cluster: Cluster | None) -> dict[str, str]:
    if cluster is None:
        return clean_environment() | {"PATH": str(Path(sys.executable).parent)}
    return cluster.environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
