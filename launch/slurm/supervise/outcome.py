"""How an attempt ended, found out from what its ranks left behind."""

from dataclasses import dataclass, replace

from launch.slurm.records.attempt import Attempt, LastWords
from launch.slurm.supervise.restart_policy import Ending, Outcome
from pipeline.runs.find import CANCELLED, saved_step
from pipeline.runs.folder import RESULT
from pipeline.runs.logs import tail
from pipeline.system.exit_codes import HUNG, STOPPED, USER_MISTAKE

TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the ranks cannot know of their end."""

    code: int
    """The highest exit code of all, as srun gives it."""
    seconds: float
    node_lost: bool
    asked: bool
    """Whether SLURM was ending the whole job."""
    at_limit: bool
    """Whether the job's time was nearly up."""


def describe(attempt: Attempt, world_size: int, how: Circumstances) -> Outcome:
    """Return the outcome of `attempt`, whose ranks have all ended."""
    ending = _ending(attempt, how)
    told = ending in ("mistake", "crashed", "node lost")
    culprit = _culprit(attempt, world_size, how.code) if told else None
    return Outcome(
        attempt.token,
        ending,
        saved_step(attempt.run_dir),
        error=culprit.error if culprit else "",
        report=culprit.traceback if culprit else "",
        node=culprit.host if culprit else "",
        log=str(attempt.log(culprit.rank)) if culprit else "",
        seconds=how.seconds,
    )


def _ending(attempt: Attempt, how: Circumstances) -> Ending:
    codes = {how.code, *(words.code for words in attempt.last_words())}
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


def _culprit(attempt: Attempt, world_size: int, code: int) -> LastWords:
    """Return what is to be told of the rank that the others failed with."""
    words = attempt.last_words()
    silent = sorted(set(range(world_size)) - {each.rank for each in words})
    failures = [each for each in words if each.code not in (0, STOPPED) and not each.is_echo]
    if failures:
        first = failures[0]
        error = f"{first.error} ({first.notes})" if first.notes else first.error
        report = f"rank {first.rank} on {first.host}: {attempt.log(first.rank)}\n{first.traceback}"
        return replace(first, error=error, traceback=report)
    rank = silent[0] if silent else 0
    log = attempt.log(rank)
    said = f"stacks: {attempt.run_dir / 'stacks'}" if code == HUNG else tail(log, TAIL_LINES)
    what = "was ended by the watchdog" if code == HUNG else f"left no word; exit code {code}"
    report = f"rank {rank} {what}\n{said}\nlog: {log}"
    return LastWords(rank, "", 0.0, code, error="", traceback=report)
