"""How an attempt ended, judged by the files that its ranks left behind."""

from dataclasses import dataclass, replace

from launch.slurm.records.attempt import Attempt, RankExit
from launch.slurm.records.history import Outcome, OutcomeKind
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


def outcome_of(attempt: Attempt, world_size: int, how: Circumstances) -> Outcome:
    """Return the outcome of `attempt`, whose ranks have all ended."""
    kind = _kind(attempt, how)
    failed = kind in ("mistake", "crashed", "node lost")
    first = _first_failure(attempt, world_size, how.code) if failed else None
    return Outcome(
        attempt.token,
        kind,
        saved_step(attempt.run_dir),
        error=first.error if first else "",
        report=first.traceback if first else "",
        node=first.host if first else "",
        log=str(attempt.log(first.rank)) if first else "",
        seconds=how.seconds,
    )


def _kind(attempt: Attempt, how: Circumstances) -> OutcomeKind:
    codes = {how.code, *(each.code for each in attempt.rank_exits())}
    if (attempt.run_dir / RESULT).exists():
        return "done"
    if (attempt.run_dir / CANCELLED).exists():
        return "cancelled"
    if USER_MISTAKE in codes:
        return "mistake"
    stopped = STOPPED in codes and codes <= {0, STOPPED}
    if stopped or how.asked:
        return "time limit" if how.at_limit else "stopped"
    return "node lost" if how.node_lost else "crashed"


def _first_failure(attempt: Attempt, world_size: int, code: int) -> RankExit:
    """Return how the first rank to fail ended, and the text to print about it."""
    exits = attempt.rank_exits()
    failures = [each for each in exits if each.code not in (0, STOPPED) and not each.is_secondary]
    if failures:
        first = failures[0]
        error = f"{first.error} ({first.notes})" if first.notes else first.error
        report = f"rank {first.rank} on {first.host}: {attempt.log(first.rank)}\n{first.traceback}"
        return replace(first, error=error, traceback=report)
    silent = sorted(set(range(world_size)) - {each.rank for each in exits})
    rank = silent[0] if silent else 0
    log = attempt.log(rank)
    said = f"stacks: {attempt.run_dir / 'stacks'}" if code == HUNG else tail(log, TAIL_LINES)
    what = "was ended by the watchdog" if code == HUNG else f"left no report; exit code {code}"
    report = f"rank {rank} {what}\n{said}\nlog: {log}"
    return RankExit(rank, "", 0.0, code, error="", traceback=report)
