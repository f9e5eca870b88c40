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
    """Give the nodes back and queue the job again, if possible without some of them."""

    reason: str
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Avoid:
    """Queue the job again without `node`; give up if it needs that node."""

    reason: str
    node: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Another attempt would end the same way."""

    reason: str


Decision = Done | Cancel | Restart | Requeue | Avoid | GiveUp


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
        case "node lost" | "bad node" | "crashed":
            return _after_failure(history, limits)


def bad_nodes(history: Sequence[Outcome], start: str) -> list[str]:
    """Return the nodes that could not be used since `start`, JOB.RESTART of the job."""
    bad = (each for each in history if _is_bad_node(each) and start_of(each) == start)
    return list(dict.fromkeys(each.node for each in bad))


def start_of(outcome: Outcome) -> str:
    """Return JOB.RESTART of an attempt: since then, the job has had the same nodes."""
    return outcome.token.rpartition(".")[0]


def _after_failure(history: Sequence[Outcome], limits: RestartLimits) -> Decision:
    reason = _repeated_error(history) or _stuck(history, limits)
    if not reason:
        return Restart(history[-1].error or history[-1].kind)
    node = _node_to_blame(history, limits)
    return Avoid(reason, node) if node else GiveUp(reason)


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
    attempts, last = len(_without_progress(history)), history[-1]
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


def _without_progress(history: Sequence[Outcome]) -> list[Outcome]:
    """Return the attempts, from the last one back, that saved nothing beyond where they started.

    Those that were asked to stop are left out: they may not have had the time. Bad nodes are found
    before anything starts, so all of them since a start of the job are one attempt; and none if
    leaving the nodes that were bad before led to another one.
    """
    attempts: dict[str, Outcome] = {}
    for number, outcome in reversed(list(enumerate(history))):
        before = history[:number]
        if outcome.step > (before[-1].step if before else 0):
            break
        if outcome.kind != "stopped" and not _is_another_bad_node(outcome, before):
            key = start_of(outcome) if _is_bad_node(outcome) else outcome.token
            attempts.setdefault(key, outcome)
    return list(attempts.values())


def _is_bad_node(outcome: Outcome) -> bool:
    return outcome.kind == "bad node"


def _is_another_bad_node(outcome: Outcome, before: Sequence[Outcome]) -> bool:
    """Whether other nodes than this one were bad at earlier starts of the job."""
    earlier = filter(_is_bad_node, before)
    known = {each.node for each in earlier if start_of(each) != start_of(outcome)}
    return _is_bad_node(outcome) and bool(known) and outcome.node not in known


def _node_to_blame(history: Sequence[Outcome], limits: RestartLimits) -> str:
    """Return the node on which all of the last attempts failed since the job started, if any.

    Without a change of nodes, the same failure does not show whether the node causes it.
    """
    last = history[-1]
    repeats = 2 if _repeated_error(history) else limits.attempts_without_progress
    failures = [each for each in reversed(history) if each.kind != "stopped"][:repeats]
    same = {(each.node, start_of(each)) for each in failures} == {(last.node, start_of(last))}
    return last.node if same and len(failures) > 1 else ""
