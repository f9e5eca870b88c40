"""What follows from how the attempts at a run have ended. A pure function of their history."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ending = Literal["done", "cancelled", "mistake", "stopped", "time limit", "node lost", "crashed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    token: str
    ending: Ending
    step: int
    """The newest checkpoint's, when it ended; 0 is none."""
    error: str = ""
    """What the first rank that failed failed with, and where; empty if nobody could say."""
    report: str = ""
    """Its traceback, or what else there is to tell."""
    node: str = ""
    """Where that rank was; empty if nobody could say."""
    log: str = ""
    """The path of its output."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often a run may come back; None is without bound. See `slurm` in the configuration."""

    attempts_without_progress: int
    time_limits: int | None
    preemptions: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """The run is finished."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody wants the run to stop; what it has done is saved."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start anew, on the nodes that the job has: it costs seconds, where queueing costs minutes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give the nodes back, and queue for others."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Another attempt would end in the same way."""

    reason: str


Verdict = Done | Cancel | Restart | Requeue | GiveUp


def decide(history: Sequence[Outcome], bounds: Bounds) -> Verdict:
    """Say what follows from `history`, whose last attempt has just ended."""
    last = history[-1]
    match last.ending:
        case "done":
            return Done()
        case "cancelled":
            return Cancel()
        case "mistake":
            return GiveUp(f"{last.error}\n{last.report}")
        case "time limit":
            reason = _exhausted(history, "slurm.time_limits", bounds.time_limits)
            reason = reason or _stuck(history, bounds)
            return GiveUp(reason) if reason else Requeue(last.ending)
        case "stopped":
            reason = _exhausted(history, "slurm.preemptions", bounds.preemptions)
            return GiveUp(reason) if reason else Requeue(last.ending)
        case "node lost" | "crashed":
            reason = _repeats(history) or _stuck(history, bounds)
            return GiveUp(reason) if reason else Restart(last.error or last.ending)


def _exhausted(history: Sequence[Outcome], setting: str, bound: int | None) -> str:
    """Say that the last attempt ended in a way in which too many have ended; else nothing."""
    ending = history[-1].ending
    count = sum(outcome.ending == ending for outcome in history)
    if bound is None or count <= bound:
        return ""
    return f"{count} attempts have ended so ({ending}), and {setting}={bound}; raise it to go on"


def _repeats(history: Sequence[Outcome]) -> str:
    """Say that the last two crashes were one and the same; else nothing."""
    crashes = [outcome for outcome in history if outcome.ending == "crashed"]
    if history[-1].ending != "crashed" or len(crashes) < 2:
        return ""
    before, last = crashes[-2:]
    if not last.error or (before.error, before.step) != (last.error, last.step):
        return ""
    return f"the same error came twice at the same place: {last.error}\n{last.report}"


def _stuck(history: Sequence[Outcome], bounds: Bounds) -> str:
    """Say that too many attempts in a row have saved nothing new; else nothing."""
    count, last = _without_progress(history), history[-1]
    if count < bounds.attempts_without_progress:
        return ""
    return (
        f"{count} attempts in a row have saved no new checkpoint; the last one:"
        f" {last.error or last.ending}\n{last.report}"
    )


def _without_progress(history: Sequence[Outcome]) -> int:
    """Count the attempts, from the last one back, that did not get beyond where they began.

    Those that were asked to stop do not count: they may have had no time.
    """
    began = [0, *(outcome.step for outcome in history[:-1])]
    count = 0
    for outcome, step in zip(reversed(history), reversed(began), strict=True):
        if outcome.step > step:
            break
        count += outcome.ending != "stopped"
    return count
