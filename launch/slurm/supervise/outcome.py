"""How an attempt ended, judged by the files that its ranks left behind and by srun's messages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from launch.slurm.records.attempt import Attempt, RankExit
from launch.slurm.records.history import Outcome, OutcomeKind
from launch.slurm.supervise.srun_messages import TaskFailure, not_executed
from pipeline.runs.find import CANCELLED, saved_step
from pipeline.runs.folder import RESULT
from pipeline.runs.summary import tail
from pipeline.system.exit_codes import HUNG, STOPPED, USER_MISTAKE

TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Facts about the end that the ranks cannot know."""

    code: int
    """The highest exit code of all ranks, as srun returns it."""
    seconds: float
    node_lost: bool
    asked: bool
    """Whether SLURM was ending the whole job."""
    at_limit: bool
    """Whether the job's time was nearly up."""
    failures: Sequence[TaskFailure] = ()
    """The tasks that failed, in the order in which srun reported them."""


def outcome_of(attempt: Attempt, world_size: int, how: Circumstances) -> Outcome:
    """Return the outcome of `attempt`, whose ranks have all ended."""
    first = _first_task_failure(attempt, world_size, how.failures)
    kind = _kind(attempt, world_size, how, first)
    failed = kind in ("mistake", "crashed", "node lost", "bad node")
    end = _first_failure(attempt, world_size, how.code, first) if failed else None
    return Outcome(
        attempt.token,
        kind,
        saved_step(attempt.run_dir),
        error=end.error if end else "",
        report=end.traceback if end else "",
        node=end.host if end else "",
        log=str(attempt.log(end.rank)) if end else "",
        seconds=how.seconds,
    )


def _kind(
    attempt: Attempt, world_size: int, how: Circumstances, first: TaskFailure | None
) -> OutcomeKind:
    exits = attempt.rank_exits()
    codes = {how.code, *(each.code for each in exits)}
    if (attempt.run_dir / RESULT).exists():
        return "done"
    if (attempt.run_dir / CANCELLED).exists():
        return "cancelled"
    mistaken = [each for each in exits if each.code == USER_MISTAKE]
    # What only some ranks see, or what was fine before, may be the fault of a node.
    if len(mistaken) == world_size and not saved_step(attempt.run_dir):
        return "mistake"
    stopped = STOPPED in codes and codes <= {0, STOPPED} and _is_stop(first)
    if stopped or how.asked:
        return "time limit" if how.at_limit else "stopped"
    if how.node_lost:
        return "node lost"
    return "bad node" if first and first.node and not first.launched else "crashed"


def _is_stop(first: TaskFailure | None) -> bool:
    """Whether the first rank that failed, if any, was asked to stop: srun then ends the others."""
    return first is None or first.why == f"Exited with exit code {STOPPED}"


def _first_task_failure(
    attempt: Attempt, world_size: int, failures: Sequence[TaskFailure]
) -> TaskFailure | None:
    """Return the first failure, with the node of its rank; None if there is none."""
    if not failures:
        return None
    nodes, first = list(attempt.addresses()), failures[0]
    rank = first.rank
    if rank is None:
        rank = nodes.index(first.node) * world_size // len(nodes) if first.node in nodes else 0
    why = not_executed(tail(attempt.log(rank), TAIL_LINES))
    return TaskFailure(
        first.node or ("" if first.launched else nodes[rank * len(nodes) // world_size]),
        rank,
        why or first.why,
        launched=first.launched and not why,
    )


def _first_failure(
    attempt: Attempt, world_size: int, code: int, first: TaskFailure | None
) -> RankExit:
    """Return how the first rank to fail ended, and the text to print about it.

    Its host is empty if no node is to blame.
    """
    exits = attempt.rank_exits()
    silent = sorted(set(range(world_size)) - {each.rank for each in exits})
    # A rank that died before all others without a report caused their errors.
    if (
        first is not None
        and first.rank in silent
        and (code != HUNG or not first.launched)
        and not _is_stop(first)
    ):
        return _reported_by_srun(attempt, first, first.rank)
    failures = [each for each in exits if each.code not in (0, STOPPED) and not each.is_secondary]
    if failures:
        end = failures[0]
        error = f"{end.error} ({end.notes})" if end.notes else end.error
        report = f"rank {end.rank} on {end.host}: {attempt.log(end.rank)}\n{end.traceback}"
        host = "" if _is_everywhere(failures, world_size) else end.host
        return replace(end, error=error, traceback=report, host=host)
    rank = silent[0] if silent else 0
    log = attempt.log(rank)
    said = f"stacks: {attempt.run_dir / 'stacks'}" if code == HUNG else tail(log, TAIL_LINES)
    what = "was ended by the watchdog" if code == HUNG else f"left no report; exit code {code}"
    report = f"rank {rank} {what}\n{said}\nlog: {log}"
    return RankExit(rank, "", 0.0, code, error="", traceback=report)


def _is_everywhere(failures: Sequence[RankExit], world_size: int) -> bool:
    """Whether all ranks failed, so that it is not the fault of one node.

    The only node of a run may be to blame for errors that are neither a mistake nor of the loss.
    """
    several = len({each.host for each in failures}) > 1
    return len(failures) == world_size and (several or not any(each.traceback for each in failures))


def _reported_by_srun(attempt: Attempt, first: TaskFailure, rank: int) -> RankExit:
    """Return the end of a rank that left no report, in srun's words."""
    log = attempt.log(rank)
    place = f"rank {rank} on {first.node}" if first.node else f"rank {rank}"
    what = "left no report" if first.launched else "was not started"
    report = f"{place} {what}: {first.why}\n{tail(log, TAIL_LINES)}\nlog: {log}"
    error = "" if first.launched else f"{place} was not started: {first.why}"
    return RankExit(rank, first.node, 0.0, 1, error=error, traceback=report)
