"""How the attempts of a submission ended, one line of JSON each; it survives a requeue."""

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from launch.slurm.supervise.restart_policy import Outcome

HISTORY = "history.jsonl"


def append_outcome(folder: Path, outcome: Outcome) -> None:
    """Add one line to the history in `folder`, and return once it is on disk."""
    with (folder / HISTORY).open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read() not in (b"", b"\n")  # a line that a crash cut off
        file.write(b"\n" * torn + json.dumps(asdict(outcome)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_history(folder: Path) -> list[Outcome]:
    """Return how the attempts ended, oldest first; a line that was cut off does not count."""
    try:
        lines = (folder / HISTORY).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    outcomes: list[Outcome] = []
    for line in lines:
        with suppress(ValueError):
            outcomes.append(TypeAdapter(Outcome).validate_json(line))
    return outcomes
