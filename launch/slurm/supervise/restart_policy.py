"""Whether a run is restarted, requeued or given up: a pure function of how its attempts ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from launch.slurm.records.history import Outcome
from pipeline.system.command import plural


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How often a run may start again; None is unlimited. See `slurm` in the configuration."""

    attempts_without_progress: int
    time_limits: int | None
    preemptions: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """The run is finished."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The user has cancelled the run; its work is saved."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start another attempt inside the job: that takes seconds, and queueing takes minutes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give the nodes back and queue the job again."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Another attempt would end the same way."""

    reason: str


Decision = Done | Cancel | Restart | Requeue | GiveUp


def decide(history: Sequence[Outcome], limits: RestartLimits) -> Decision:
    """Return what to do after the last attempt of `history`."""
    last = history[-1]
    match last.kind:
        case "done":
            return Done()
        case "cancelled":
            return Cancel()
        case "mistake":
            return GiveUp(f"{last.error}\n{last.report}")
        case "time limit":
            reason = _too_many(history, "time limit reached", "time_limits", limits.time_limits)
            reason = reason or _stuck(history, limits)
            return GiveUp(reason) if reason else Requeue(last.kind)
        case "stopped":
            reason = _too_many(history, "stopped", "preemptions", limits.preemptions)
            return GiveUp(reason) if reason else Requeue(last.kind)
        case "node lost" | "crashed":
            reason = _repeated_error(history) or _stuck(history, limits)
            return GiveUp(reason) if reason else Restart(last.error or last.kind)


def _too_many(history: Sequence[Outcome], what: str, setting: str, limit: int | None) -> str:
    """Return a reason if more than `limit` attempts ended like the last one; else nothing."""
    times = sum(outcome.kind == history[-1].kind for outcome in history)
    if limit is None or times <= limit:
        return ""
    return f"{what} {times} times, but slurm.{setting}={limit}; raise it to continue"


def _repeated_error(history: Sequence[Outcome]) -> str:
    """Return a reason if the last two crashes had the same error at the same step; else nothing."""
    crashes = [outcome for outcome in history if outcome.kind == "crashed"]
    if history[-1].kind != "crashed" or len(crashes) < 2:
        return ""
    before, last = crashes[-2:]
    if not last.error or (before.error, before.step) != (last.error, last.step):
        return ""
    return f"the same error occurred twice at the same step: {last.error}\n{last.report}"


def _stuck(history: Sequence[Outcome], limits: RestartLimits) -> str:
    """Return a reason if too many attempts in a row saved nothing new; else nothing."""
    attempts, last = _without_progress(history), history[-1]
    if attempts < limits.attempts_without_progress:
        return ""
    remedy = ""
    if last.kind == "time limit":
        remedy = (
            "; a job is too short to start and reach a checkpoint: raise slurm.time_limit, or save"
            " more often with a lower checkpoint.every_steps"
        )
    return (
        f"{plural(attempts, 'attempt')} in a row saved no new checkpoint; the last one ended with:"
        f" {last.error or last.kind}{remedy}\n{last.report}"
    )


def _without_progress(history: Sequence[Outcome]) -> int:
    """Count the attempts, from the last one back, that saved nothing beyond where they started.

    Attempts that were asked to stop do not count: they may not have had the time.
    """
    starts = [0, *(outcome.step for outcome in history[:-1])]
    attempts = 0
    for outcome, step in zip(reversed(history), reversed(starts), strict=True):
        if outcome.step > step:
            break
        attempts += outcome.kind != "stopped"
    return attempts
