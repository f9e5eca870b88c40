"""Jobs in SLURM's queue."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from launch.slurm.api.cli import SlurmError, slurm

FIELDS = "%i|%T|%L|%D|%S|%N|%r|%V|%o"


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that is pending or running."""

    id: str
    state: str
    """As SLURM writes it, such as PENDING or COMPLETING."""
    time_left: str
    """As SLURM writes it: 1-02:30:00, or UNLIMITED."""
    nodes: int
    started_at: float | None
    """Unix time in seconds; the expected start of a pending job."""
    node_list: str = ""
    """Such as n[1-4]; empty while pending."""
    reason: str = ""
    """Why it is pending; empty if it runs."""
    submitted_at: float | None = None
    """Unix time in seconds at which it was submitted or last requeued."""
    script: str = ""
    """The path of its batch script; empty if unknown."""


def read_jobs(job_ids: Iterable[str]) -> dict[str, QueuedJob]:
    """Return the jobs that have not ended, by id, with one call of squeue.

    Raises `SlurmError` if SLURM does not answer.
    """
    wanted = sorted(set(job_ids))
    if not wanted:
        return {}
    try:
        return _ask(f"--jobs={','.join(wanted)}")
    except SlurmError as error:
        if "Invalid job id" in str(error):  # SLURM has forgotten the job
            return {}
        raise


def read_users_jobs() -> dict[str, QueuedJob]:
    """Return the jobs of this user that have not ended, by id."""
    return _ask(f"--user={os.getuid()}")


def _ask(which: str) -> dict[str, QueuedJob]:
    options = ("--all", "--noheader", "--array", which, f"--format={FIELDS}")
    lines = slurm("squeue", *options).splitlines()  # --all: in hidden partitions, too
    jobs = [job_from(line) for line in lines if "|" in line]  # another is the name of a cluster
    return {job.id: job for job in jobs}


def job_from(line: str) -> QueuedJob:
    """Return a job from a line of squeue in the format `FIELDS`."""
    job_id, state, left, nodes, start, node_list, reason, *rest = line.split("|", 8)
    submitted, script = rest or ("", "")
    return QueuedJob(
        job_id,
        state,
        left,
        int(nodes),
        unix_time(start),
        node_list,
        reason="" if reason == "None" else reason,
        submitted_at=unix_time(submitted),
        script="" if script == "(null)" else script,
    )


def unix_time(text: str) -> float | None:
    """Return a time as SLURM writes it in seconds since 1970; None if it is not a time."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
