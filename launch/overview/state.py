"""The state of a run, from its folder, SLURM's queue and the processes of this machine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from launch.slurm.api.jobs import QueuedJob
from launch.slurm.records.attempt import ATTEMPTS
from launch.slurm.records.history import Outcome, OutcomeKind, last_outcome
from launch.slurm.records.job_log import job_log, last_error
from launch.slurm.records.submission import (
    Submission,
    last_submission,
    other_cluster,
    own_job,
)
from pipeline.runs.find import CANCELLED, saved_checkpoint
from pipeline.runs.folder import RESULT, read_result
from pipeline.runs.holder import holder
from pipeline.runs.summary import Metrics

QUIET_SECONDS = 600.0
"""A run that reported more recently but has no known process is assumed to run elsewhere."""
STATES: dict[OutcomeKind, str] = {
    "done": "finished",
    "cancelled": "cancelled",
    "mistake": "failed",
    "crashed": "failed",
    "node lost": "failed",
    "bad node": "failed",
    "stopped": "stopped",
    "time limit": "stopped",
}
WAITS: tuple[OutcomeKind, ...] = ("stopped", "time limit", "node lost")
"""Outcomes after which a job waits in the queue again."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that decides the state of a run."""

    finished: bool
    cancelled: bool
    """Whether the user has cancelled it."""
    job: QueuedJob | None
    """Its pending or running job."""
    queued: bool
    """Whether it was ever queued."""
    slurm_answers: bool
    held: bool
    """Whether a process on this machine holds it."""
    last_outcome: Outcome | None
    """The outcome of the last attempt of its last submission."""
    metrics: Metrics
    now: float
    last_error: str = ""
    """The last error in the log of its job."""
    elsewhere: str = ""
    """The cluster of its job, if SLURM's commands ask another one."""


@dataclass(frozen=True, slots=True)
class RunState:
    """One run; None means unknown."""

    name: str
    run_dir: Path
    job_id: str | None
    state: str
    """pending, running, cancelling, finished, failed, cancelled, stopped, lost or unknown, or
    another state of SLURM in lower case."""
    reason: str
    """Why it is pending or has failed; may be empty."""
    nodes: int | None
    step: int | None
    last_step: int | None
    epoch: float | None
    last_epoch: float | None
    top1_error_percent: float | None
    images_per_second: float | None
    """While it runs: the last report. Once it is finished: over the whole run."""
    time_left: str | None
    """The time left for its job, as SLURM writes it."""
    checkpoint_step: int | None
    checkpoint_age_seconds: float | None
    restarts: int


def read_state(
    run_dir: Path,
    submission: Submission | None,
    jobs: Mapping[str, QueuedJob] | None,
    metrics: Metrics,
) -> RunState:
    """Return the state of a run with these `metrics`; `jobs` is None if SLURM does not answer."""
    evidence = _evidence(run_dir, submission, jobs, metrics)
    job = evidence.job
    state, reason = judge(evidence)
    saved = saved_checkpoint(run_dir)
    newest, result = _newest(metrics), readable_result(run_dir)
    return RunState(
        name=run_dir.name,
        run_dir=run_dir.resolve(),
        job_id=(submission.job_id or None) if submission else None,
        state=state,
        reason=reason,
        nodes=job.nodes if job else submission.layout.nodes if submission else None,
        step=newest.get("step"),
        last_step=metrics.started.get("last_step"),
        epoch=newest.get("epoch"),
        last_epoch=metrics.started.get("last_epoch"),
        top1_error_percent=_number((metrics.evaluated | result).get("top1_error_percent")),
        images_per_second=_number(result.get("images_per_second")) or _speed(metrics, state),
        time_left=job.time_left if job else None,
        checkpoint_step=saved.step if saved else None,
        checkpoint_age_seconds=evidence.now - saved.saved_at if saved else None,
        restarts=max(0, count_attempts(run_dir, metrics) - 1),
    )


def _evidence(
    run_dir: Path,
    submission: Submission | None,
    jobs: Mapping[str, QueuedJob] | None,
    metrics: Metrics,
) -> Evidence:
    finished = (run_dir / RESULT).exists()
    job = own_job(submission, jobs or {}) if submission else None
    outcome = last_outcome(submission) if submission else None
    gone = submission if submission and submission.job_id and not (finished or job) else None
    return Evidence(
        finished=finished,
        cancelled=(run_dir / CANCELLED).exists(),
        job=job,
        queued=submission is not None and bool(submission.job_id),
        slurm_answers=jobs is not None,
        held=holder(run_dir) is not None,
        last_outcome=outcome,
        metrics=metrics,
        now=time.time(),
        last_error=last_error(job_log(run_dir, gone.job_id)) if gone and not outcome else "",
        elsewhere=other_cluster(gone) if gone and jobs is not None else "",
    )


def judge(seen: Evidence) -> tuple[str, str]:
    """Return the state of a run, and the reason for it."""
    if seen.finished:
        return "finished", ""
    if seen.job is not None:
        running = seen.job.state == "RUNNING"
        state = "cancelling" if running and seen.cancelled else seen.job.state.lower()
        return state, "" if running else seen.job.reason
    if seen.held:
        return "running", ""
    if seen.queued and not seen.slurm_answers:
        return "unknown", "SLURM does not answer"
    return _judge_by_records(seen)


def _judge_by_records(seen: Evidence) -> tuple[str, str]:
    """Return the state of a run without a known job or process."""
    if seen.cancelled:
        return "cancelled", ""
    if seen.elsewhere and (seen.last_outcome is None or seen.last_outcome.kind in WAITS):
        return "unknown", f"its job is on cluster {seen.elsewhere}, not on this one"
    if seen.last_outcome is not None:
        outcome = seen.last_outcome
        return STATES[outcome.kind], first_line(outcome.error or outcome.report)
    return _judge_by_metrics(seen)


def _judge_by_metrics(seen: Evidence) -> tuple[str, str]:
    """Return the state of a run from its own last report."""
    metrics = seen.metrics
    if seen.queued:
        return "lost", seen.last_error or "its job is gone and left no report"
    match metrics.ended.get("status"):
        case "failed":
            return "failed", first_line(str(metrics.ended.get("message", "")))
        case "interrupted":
            return "stopped", first_line(str(metrics.ended.get("message", "")))
        case _ if metrics.updated_at is None:
            return "not started", ""
        case _ if seen.now - metrics.updated_at < QUIET_SECONDS:
            return "running", "on another machine, or ended moments ago"
        case _:
            return "lost", "no process holds it, and the last one left no report"


def readable_result(run_dir: Path) -> dict[str, Any]:
    """Return the result of a run; empty if there is none, or if it cannot be read."""
    try:
        result: Any = read_result(run_dir)
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", result) if isinstance(result, dict) else {}


def count_attempts(run_dir: Path, metrics: Metrics) -> int:
    """Return how often the run was started, by SLURM's supervisor or otherwise."""
    return max(sum(1 for _ in (run_dir / ATTEMPTS).glob("*")), metrics.starts)


def submissions(run_dirs: list[Path]) -> dict[Path, Submission]:
    """Return the last submission of each run that was queued."""
    found = {run_dir: last_submission(run_dir) for run_dir in run_dirs}
    return {run_dir: each for run_dir, each in found.items() if each is not None}


def first_line(text: str) -> str:
    """Return the first line of a text."""
    return text.strip().partition("\n")[0]


def _newest(metrics: Metrics) -> dict[str, Any]:
    """Return the event with the latest step."""
    return max(metrics.progress, metrics.evaluated, key=lambda event: event.get("step", -1))


def _speed(metrics: Metrics, state: str) -> float | None:
    running = state in ("running", "cancelling")
    return _number(metrics.progress.get("images_per_second")) if running else None


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None
