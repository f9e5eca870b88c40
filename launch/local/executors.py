"""Starting a training on this machine: directly, or as a job of submitit's own executors."""

import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

from submitit import AutoExecutor, Job
from submitit.core.utils import UncompletedJobError

from launch.local.ranks import run_ranks
from pipeline.system.exit_codes import FAILURE, INTERRUPTED

Executor = Literal["local", "debug"]
ROOT = Path(__file__).resolve().parents[2]
JOBS = "jobs"
TIMEOUT_MINUTES = 60 * 24 * 365
"""A year: submitit's default is two minutes."""


def start_here(command: Sequence[str], *, ranks: int, gpus: int) -> int:
    """Train on this machine with `ranks` processes; return the exit code."""
    if ranks == 1:
        from pipeline import train

        return train.main(command)
    return run_ranks(["pipeline.train", *command], ranks=ranks, cpu_only=gpus == 0)


def start_as_job(
    executor: Executor, runs_dir: Path, command: Sequence[str], *, ranks: int, gpus: int
) -> int:
    """Train like `start_here`, but in a job of submitit; wait for it and return the exit code.

    `local` is another process, with its output in `runs_dir`/jobs; Ctrl-C asks it to save and stop.
    `debug` is this process, with a debugger at the first exception.
    """
    jobs = AutoExecutor(runs_dir / JOBS, cluster=executor)
    # One task: it starts the ranks, and ends all of them if one fails, which submitit does not.
    jobs.update_parameters(timeout_min=TIMEOUT_MINUTES, tasks_per_node=1, gpus_per_node=gpus)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    os.environ["PYTHONSAFEPATH"] = "1"  # or packages in the current folder would take precedence
    with _ctrl_c_ignored():  # on Ctrl-C submitit would kill the ranks
        job = jobs.submit(partial(start_here, list(command), ranks=ranks, gpus=gpus))
    if executor == "debug":
        return job.result()
    print(f"job {job.job_id}: output in {job.paths.stdout}", flush=True)
    return _wait_for(job)


@contextmanager
def _ctrl_c_ignored() -> Generator[None]:
    """Ignore Ctrl-C here during the block, and in the processes that it starts for good."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_for(job: Job[int]) -> int:
    """Return the exit code of a job in another process; each Ctrl-C sends it SIGTERM."""
    interrupted = False
    while True:
        try:
            code = job.result()
        except UncompletedJobError as error:
            print(f"job {job.job_id} was lost: {error}", file=sys.stderr)
            return FAILURE
        except KeyboardInterrupt:
            interrupted = True
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)
        else:
            return INTERRUPTED if interrupted and code else code
