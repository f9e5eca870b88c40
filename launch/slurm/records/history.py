"""How the attempts at a run ended: one line of JSON each, kept across requeues."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from launch.slurm.records.attempt import ATTEMPTS
from launch.slurm.records.submission import RECORD, SUBMISSIONS, Submission
from pipeline.system.durable import write_whole
from pipeline.system.patience import patiently

HISTORY = "history.jsonl"
OutcomeKind = Literal[
    "done", "cancelled", "mistake", "stopped", "time limit", "node lost", "bad node", "crashed"
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    token: str
    """JOB.RESTART.NUMBER of the attempt."""
    kind: Annotated[OutcomeKind, Field(alias="ending")]  # "ending" is its name in the file
    step: int
    """The step of the newest checkpoint when the attempt ended; 0 if there was none."""
    error: str = ""
    """The error of the rank that failed first, and where; empty if unknown."""
    report: str = ""
    """Its traceback, or whatever else is known."""
    node: str = ""
    """The node of that rank; empty if unknown."""
    log: str = ""
    """The path of its output."""
    seconds: float = 0.0


RECORDS = TypeAdapter(Outcome)


def to_record(outcome: Outcome) -> dict[str, str | int | float]:
    """Return an outcome with the keys that the file has."""
    return RECORDS.dump_python(outcome, by_alias=True)


def append_outcome(folder: Path, outcome: Outcome) -> None:
    """Add a line to the history of the submission in `folder`; return once it is on disk."""
    lines = b"".join(line + b"\n" for line in _lines(folder))
    added = json.dumps(to_record(outcome)).encode() + b"\n"
    # The file is replaced: an append to a disk that fails might be incomplete, or repeated.
    patiently(lambda: write_whole(folder / HISTORY, lines + added))


def read_history(folder: Path) -> list[Outcome]:
    """Return the outcomes of a submission, oldest first; incomplete lines are left out."""
    outcomes: list[Outcome] = []
    for line in _lines(folder):
        with suppress(ValueError):
            outcomes.append(RECORDS.validate_json(line))
    return outcomes


def _lines(folder: Path) -> list[bytes]:
    try:
        return patiently((folder / HISTORY).read_bytes).splitlines()
    except FileNotFoundError:
        return []


def last_outcome(submission: Submission) -> Outcome | None:
    """Return how the last attempt of a submission ended.

    None if there was no attempt, or if the job ended before it could record an outcome.
    """
    outcomes = read_history(submission.folder)
    if not outcomes:
        return None
    attempts = (submission.run_dir / ATTEMPTS).glob(f"{submission.job_id}.*.*")
    newest = max((_place(path.name) for path in attempts), default=(0, 0))
    return outcomes[-1] if _place(outcomes[-1].token) >= newest else None


def _place(token: str) -> tuple[int, ...]:
    """Return restart and number of an attempt; they order the attempts of a job."""
    return tuple(int(part) for part in token.split(".")[-2:])


def all_outcomes(run_dir: Path) -> list[Outcome]:
    """Return the outcomes of all submissions of a run, oldest first."""
    folders = sorted(path.parent for path in (run_dir / SUBMISSIONS).glob(f"*/{RECORD}"))
    return [outcome for folder in folders for outcome in read_history(folder)]
