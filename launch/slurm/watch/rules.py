"""The watcher's actions on a job: pure functions of its state."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.slurm.api.jobs import QueuedJob
from pipeline.system.command import command_line, plural

DAY_SECONDS = 24 * 3600.0
FAILED_LAUNCHES = ("launch failed requeued held", "JobHoldMaxRequeue")
"""Reasons for which SLURM itself holds a job, usually because a node could not start it."""
HOLDS = ("held", "hold")
RESUME = Path(__file__).resolve().parents[2] / "resume.py"


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """When the watcher acts."""

    stalled_seconds: float
    node_failures: int = 3
    """Failures of one node within a day."""


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """An attempt that failed on a node."""

    node: str
    at: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """A run with a pending or running job."""

    run_dir: Path
    job: QueuedJob
    active_at: float
    """Unix time in seconds at which the run last wrote something."""
    restarts: int = 0
    """How often SLURM requeued the job. This and the rest are only known for pending jobs."""
    excluded: frozenset[str] = field(default_factory=frozenset[str])
    """Nodes that the job excludes."""
    fitting_nodes: int = 0
    """Nodes of its largest partition that have what it asks for."""


@dataclass(frozen=True, slots=True)
class LostRun:
    """An unfinished run whose job ended without recording an outcome."""

    run_dir: Path
    job_id: str
    step: int
    """The step of its newest checkpoint."""
    last_error: str
    """From the log of the job; may be empty."""


@dataclass(frozen=True, slots=True)
class Action:
    """An action to take and report, or only a report."""

    key: str
    """No two actions with the same key are taken."""
    message: str
    command: tuple[str, ...] = ()
    """A command of SLURM, or launch/resume.py; empty to only report."""


def due_actions(
    run: WatchedRun, failing: Sequence[str], done: Iterable[str], limits: WatchLimits, now: float
) -> list[Action]:
    """Return the actions for one run; `done` are the keys of earlier ones."""
    before = set(done)
    possible = [
        _exclude(run, failing),  # first: a started job can no longer exclude nodes
        _start(run),
        _release(run, before),
        _report_stall(run, limits, now),
    ]
    return [each for each in possible if each is not None and each.key not in before]


def recovery(run: LostRun, done: Iterable[str]) -> Action | None:
    """Return the action for a lost run: resume it, but only once from each step."""
    before = set(done)
    name = f"job {run.job_id} of {run.run_dir.name}"
    why = run.last_error or "no error in its log"
    key = f"resume {run.run_dir} at step {run.step}"
    action = Action(
        key,
        f"{name} ended without a report ({why}): resumed from step {run.step:,}",
        (sys.executable, str(RESUME), str(run.run_dir)),
    )
    if f"{key}, job {run.job_id}" in before:
        return None
    if key in before:
        action = Action(
            f"{key}, job {run.job_id}",
            f"{name} was lost again without a new checkpoint ({why}): see"
            f" {command_line('launch/status.py', run.run_dir)}",
        )
    return action


def failing_nodes(failures: Iterable[NodeFailure], limits: WatchLimits, now: float) -> list[str]:
    """Return the nodes on which too many attempts failed within the last day."""
    counts = Counter(each.node for each in failures if now - each.at < DAY_SECONDS)
    return sorted(node for node, count in counts.items() if count >= limits.node_failures)


def _start(run: WatchedRun) -> Action | None:
    """Start a requeued job, which SLURM would delay by two minutes, in two seconds.

    In the second in which it ended, its node would take its credential for the old, revoked one,
    and the job would fail.

    A job that never ran waits for a begin time that its owner chose.
    """
    job = run.job
    if (job.state, job.reason) != ("PENDING", "BeginTime") or not run.restarts:
        return None
    return Action(
        f"start {job.id}.{run.restarts}",
        f"{_name(run)} was requeued with a delay: it may now start at once",
        ("scontrol", "update", f"jobid={job.id}", "StartTime=now+2"),
    )


def _exclude(run: WatchedRun, failing: Sequence[str]) -> Action | None:
    new = [node for node in failing if node not in run.excluded]
    if run.job.state != "PENDING" or not new:
        return None
    key, names = f"exclude {run.job.id} {','.join(new)}", ", ".join(new)
    excluded = sorted(run.excluded | set(new))
    if run.fitting_nodes - len(excluded) < run.job.nodes:
        return Action(
            f"{key} impossible",
            f"attempts keep failing on {names}, but {_name(run)} needs"
            f" {'it: check this node' if len(new) == 1 else 'them: check these nodes'}",
        )
    return Action(
        key,
        f"{_name(run)} now excludes {names}, where attempts keep failing",
        ("scontrol", "update", f"jobid={run.job.id}", f"ExcNodeList={','.join(excluded)}"),
    )


def _release(run: WatchedRun, done: set[str]) -> Action | None:
    """Release a job that SLURM holds, once; report one that is held again, or by a person."""
    job, reason = run.job, run.job.reason.replace("_", " ")
    if job.state != "PENDING" or not any(word in reason.lower() for word in HOLDS):
        return None
    key = f"release {job.id}"
    command = ("scontrol", "release", job.id)
    if reason in FAILED_LAUNCHES and key not in done:
        return Action(key, f"{_name(run)} was held ({reason}): released", command)
    return Action(
        f"held {job.id}.{run.restarts}",
        f"{_name(run)} is held ({reason}); to release it: {' '.join(command)}",
    )


def _report_stall(run: WatchedRun, limits: WatchLimits, now: float) -> Action | None:
    since = max(run.active_at, run.job.started_at or 0.0)
    if run.job.state != "RUNNING" or now - since < limits.stalled_seconds:
        return None
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    minutes = plural(round((now - since) / 60), "minute")
    return Action(
        f"stalled {run.job.id} {since:.0f}",
        f"{_name(run)} is running on {run.job.node_list}, but has written nothing for {minutes},"
        f" since {clock}: see {command_line('launch/status.py', run.run_dir)}",
    )


def _name(run: WatchedRun) -> str:
    return f"job {run.job.id} of {run.run_dir.name}"
