"""Jobs that wait or run, as SLURM's queue shows them: asked once for all of them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.slurm.api.cli import SlurmError, slurm
from launch.slurm.records.submission import last_submission

FIELDS = "%i|%T|%L|%D|%S|%N|%r"


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that has not ended."""

    id: str
    state: str
    """As SLURM writes it, such as PENDING or COMPLETING."""
    time_left: str
    """As SLURM writes it: 1-02:30:00, or UNLIMITED."""
    nodes: int
    started_at: float | None
    """Seconds, as `time.time` gives them; of a job that waits, when it is expected to start."""
    node_list: str = ""
    """Such as n[1-4]; empty while it waits."""
    reason: str = ""
    """Why it does not run; empty if it does."""


def read_jobs(job_ids: Iterable[str]) -> dict[str, QueuedJob]:
    """Return by id those of the jobs that have not ended. Raises `SlurmError` without an answer."""
    wanted = sorted(set(job_ids))
    if not wanted:
        return {}
    try:
        answer = slurm(
            "squeue",
            "--noheader",
            "--array",
            f"--jobs={','.join(wanted)}",
            f"--format={FIELDS}",
        )
    except SlurmError as error:
        if "Invalid job id" in str(error):  # one that SLURM has forgotten
            return {}
        raise
    jobs = map(job_from, answer.splitlines())
    return {job.id: job for job in jobs}


def job_of(run_dir: Path) -> QueuedJob | None:
    """Return the job of a run that waits or runs; None if there is none."""
    submission = last_submission(run_dir)
    if submission is None or not submission.job_id:
        return None
    return read_jobs([submission.job_id]).get(submission.job_id)


def expect_no_job(run_dir: Path) -> None:
    """Raise `ValueError` if a job of the run waits or runs."""
    if job := job_of(run_dir):
        raise ValueError(
            f"{run_dir} has job {job.id} already ({job.state}); follow it with"
            f" launch/status.py {run_dir}, or end it with launch/cancel.py {run_dir}"
        )


def job_from(line: str) -> QueuedJob:
    """Return a job from a line of squeue's in the form of `FIELDS`."""
    job_id, state, left, nodes, start, node_list, reason = line.split("|", 6)
    reason = "" if reason == "None" else reason
    return QueuedJob(job_id, state, left, int(nodes), moment(start), node_list, reason)


def moment(text: str) -> float | None:
    """Return a moment as SLURM writes it in seconds since 1970; None if it is none."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
