"""What a watcher would do about a job of ours. Pure functions of what it sees."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.slurm.api.jobs import QueuedJob

DAY_SECONDS = 24 * 3600.0
FAILED_LAUNCHES = ("launch failed requeued held", "JobHoldMaxRequeue")
"""Reasons for which SLURM itself holds a job, mostly since a node could not start it."""
HOLDS = ("held", "hold")


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """From when on something is out of order."""

    stalled_seconds: float
    node_failures: int = 3
    """Of one node, in a day."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed on a node."""

    node: str
    at: float
    """Seconds, as `time.time` gives them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A run whose job waits or runs."""

    run_dir: Path
    job: QueuedJob
    active_at: float
    """When the run last wrote something, in seconds as `time.time` gives them."""
    restarts: int = 0
    """How often SLURM has queued the job again. This and the rest matter while the job waits."""
    excluded: frozenset[str] = field(default_factory=frozenset[str])
    """Nodes that the job does not want."""
    nodes_to_choose_from: int = 0
    """All nodes of the job's partition."""


@dataclass(frozen=True, slots=True)
class Precaution:
    """Something to do, or only to tell."""

    key: str
    """Nothing with the same key is done twice."""
    sentence: str
    command: tuple[str, ...] = ()
    """Of SLURM's; empty if it is only to be told."""


def precautions(
    seen: Seen, failing: Sequence[str], done: Iterable[str], limits: WatchLimits, now: float
) -> list[Precaution]:
    """Return what is to be done about one run; `done` has the keys of what was done before."""
    before = set(done)
    possible = [
        _exclude(seen, failing),  # before the start: where to is then known
        _start(seen),
        _release(seen, before),
        _tell_stall(seen, limits, now),
    ]
    return [each for each in possible if each is not None and each.key not in before]


def failing_nodes(failures: Iterable[Failure], limits: WatchLimits, now: float) -> list[str]:
    """Return the nodes on which too many attempts have failed in the last day."""
    counts = Counter(each.node for each in failures if now - each.at < DAY_SECONDS)
    return sorted(node for node, count in counts.items() if count >= limits.node_failures)


def _start(seen: Seen) -> Precaution | None:
    """Start a job at once that SLURM has queued again and lets wait for two minutes.

    One that waits for a time that its owner set was never started before.
    """
    job = seen.job
    if (job.state, job.reason) != ("PENDING", "BeginTime") or not seen.restarts:
        return None
    return Precaution(
        f"start {job.id}.{seen.restarts}",
        f"{_name(seen)} was queued again and waits for its time: it may start now",
        ("scontrol", "update", f"jobid={job.id}", "StartTime=now"),
    )


def _exclude(seen: Seen, failing: Sequence[str]) -> Precaution | None:
    new = [node for node in failing if node not in seen.excluded]
    if seen.job.state != "PENDING" or not new:
        return None
    key, names = f"exclude {seen.job.id} {','.join(new)}", ", ".join(new)
    all_excluded = sorted(seen.excluded | set(new))
    if seen.nodes_to_choose_from - len(all_excluded) < seen.job.nodes:
        return Precaution(
            f"{key} impossible",
            f"{_name(seen)} could not run without {names}, where attempts have failed"
            " repeatedly: look after them",
        )
    return Precaution(
        key,
        f"{_name(seen)} shall not run on {names}, where attempts have failed repeatedly",
        ("scontrol", "update", f"jobid={seen.job.id}", f"ExcNodeList={','.join(all_excluded)}"),
    )


def _release(seen: Seen, done: set[str]) -> Precaution | None:
    """Release a job once that SLURM holds; tell of one that is held again, or by a person."""
    job, reason = seen.job, seen.job.reason.replace("_", " ")
    if job.state != "PENDING" or not any(word in reason.lower() for word in HOLDS):
        return None
    key = f"release {job.id}"
    command = ("scontrol", "release", job.id)
    if reason in FAILED_LAUNCHES and key not in done:
        return Precaution(key, f"{_name(seen)} is held ({reason}): released", command)
    return Precaution(
        f"held {job.id}.{seen.restarts}",
        f"{_name(seen)} is held ({reason}) and stays so until: {' '.join(command)}",
    )


def _tell_stall(seen: Seen, limits: WatchLimits, now: float) -> Precaution | None:
    since = max(seen.active_at, seen.job.started_at or 0.0)
    if seen.job.state != "RUNNING" or now - since < limits.stalled_seconds:
        return None
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    return Precaution(
        f"stalled {seen.job.id} {since:.0f}",
        f"{_name(seen)} runs on {seen.job.node_list}, but has written nothing for"
        f" {(now - since) / 60:.0f} minutes, since {clock}: see launch/status.py {seen.run_dir}",
    )


def _name(seen: Seen) -> str:
    return f"job {seen.job.id} of {seen.run_dir.name}"
