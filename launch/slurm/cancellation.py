"""Ending a run for good, with its work saved."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch.slurm.api.cli import SlurmError, slurm
from launch.slurm.api.jobs import QueuedJob
from launch.slurm.records.submission import job_of, last_submission, other_cluster
from pipeline.runs.find import CANCELLED, saved_checkpoint, saved_step
from pipeline.runs.folder import RESULT
from pipeline.runs.holder import ask_to_stop, holder
from pipeline.system.command import command_line
from pipeline.system.durable import write_whole

POLL_SECONDS = 1.0
SAVES = {"RUNNING", "SUSPENDED"}
"""States in which a job may have ranks that can save."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Which run to end, and how."""

    run_dir: Path
    at_once: bool
    """Without waiting for the ranks to save."""
    wait_seconds: float
    say: Callable[[str], None]


def cancel(wanted: Cancellation) -> bool:
    """End a run; return whether it ended in time.

    Raises `ValueError` if there is nothing to end, or if SLURM refuses.
    """
    if (wanted.run_dir / RESULT).exists():
        raise ValueError(f"{wanted.run_dir} is finished; there is nothing to cancel")
    before = saved_step(wanted.run_dir)
    job = job_of(wanted.run_dir)
    ended = _cancel_local(wanted) if job is None else _cancel_job(wanted, job)
    if ended:
        wanted.say(what_is_saved(wanted.run_dir, before))
    return ended


def what_is_saved(run_dir: Path, before: int) -> str:
    """Return where an ended run would resume; `before` was its saved step before the request."""
    saved = saved_checkpoint(run_dir)
    resume = command_line("launch/resume.py", run_dir)
    if (run_dir / RESULT).exists():
        return f"the run finished first: {run_dir / RESULT}"
    if saved is None:
        return f"no checkpoint was saved; to start from the beginning: {resume}"
    if saved.step == before:
        return f"nothing new was saved; the last checkpoint is {saved.path}; to resume: {resume}"
    return f"saved step {saved.step:,}: {saved.path}; to resume: {resume}"


def _cancel_job(wanted: Cancellation, job: QueuedJob) -> bool:
    # Before the signal: without the mark, the ranks would be started again.
    write_whole(wanted.run_dir / CANCELLED, time.strftime("%Y-%m-%d %H:%M:%S\n").encode())
    if wanted.at_once or job.state not in SAVES:
        slurm("scancel", job.id)
        wanted.say(f"cancelled job {job.id} ({job.state})")
        return _await_end(wanted, lambda: job_of(wanted.run_dir) is None)
    wanted.say(
        f"asked job {job.id} to save and stop; waiting up to {wanted.wait_seconds:.0f} s"
        " (Ctrl-C ends only the waiting)"
    )
    signalled: set[str] = set()

    def ended() -> bool:
        now = job_of(wanted.run_dir)
        if now is not None and now.state not in SAVES:  # requeued, so it has no ranks
            slurm("scancel", now.id)
        elif now is not None:
            _signal_new_steps(now.id, signalled)
        return now is None

    return _await_end(wanted, ended)


def _signal_new_steps(job_id: str, signalled: set[str]) -> None:
    """Ask the ranks of each job step to stop, once: a second signal would end them unsaved.

    A step that starts later did not get the earlier signals.
    """
    asked = ["--all", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i"]
    steps = slurm("squeue", *asked).split()
    for step in steps:
        if step.rpartition(".")[2].isdecimal() and step not in signalled:
            signalled.add(step)
            slurm("scancel", "--signal=USR2", step)


def _cancel_local(wanted: Cancellation) -> bool:
    pid = holder(wanted.run_dir)
    if pid is None:
        submission = last_submission(wanted.run_dir)
        if submission is not None and (cluster := other_cluster(submission)):
            raise ValueError(
                f"job {submission.job_id} of {wanted.run_dir} is on cluster {cluster}, but SLURM's"
                f" commands here ask another one; use launch/cancel.py there"
            )
        raise ValueError(
            f"no job and no process on this machine runs {wanted.run_dir}; if it runs on another"
            " machine, use launch/cancel.py there, or send SIGTERM to its launch/submit.py or to"
            " any rank"
        )
    try:
        asked = ask_to_stop(wanted.run_dir)
    except PermissionError as error:
        raise ValueError(
            f"{wanted.run_dir} is run by process {pid} of another user; ask them to send SIGTERM"
        ) from error
    wanted.say(f"asked process {asked} to save and stop; waiting up to {wanted.wait_seconds:.0f} s")
    if wanted.at_once:  # the second signal
        time.sleep(2 * POLL_SECONDS)
        ask_to_stop(wanted.run_dir)
    return _await_end(wanted, lambda: holder(wanted.run_dir) is None)


def _await_end(wanted: Cancellation, ended: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + wanted.wait_seconds
    while time.monotonic() < deadline:
        try:
            if ended():
                return True
        except SlurmError as error:
            wanted.say(f"warning: {error}; trying again")
        time.sleep(POLL_SECONDS)
    wanted.say(
        f"the run has not ended after {wanted.wait_seconds:.0f} s and may still save; to end it"
        f" without saving: {command_line('launch/cancel.py', wanted.run_dir, '--now')}"
    )
    return False
