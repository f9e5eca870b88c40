"""What srun and slurmstepd report about tasks that failed: on which node, which rank, and why."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

ENDED = re.compile(r"srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)[\d,-]*: (?P<why>.+)")
NOT_LAUNCHED = re.compile(r"srun: error: tasks? (?P<rank>\d+)[\d,-]* launch failed: (?P<why>.+)")
NODE_FAILED = re.compile(
    r"srun: error: Task launch for \S+ failed on node (?P<node>\S+): (?P<why>.+)"
)
NOT_EXECUTED = re.compile(r"slurmstepd\S*: error: (?P<why>execve\(\): .+)")


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that failed."""

    node: str
    """Empty if srun named none, or several."""
    rank: int | None
    """The first of them; None if srun did not say."""
    why: str
    launched: bool = True
    """Whether the task was started at all."""


def task_failures(lines: Iterable[str]) -> list[TaskFailure]:
    """Return the failures in srun's messages, in their order."""
    found: list[TaskFailure] = []
    for line in lines:
        if match := NOT_LAUNCHED.search(line):
            found.append(TaskFailure("", int(match["rank"]), match["why"], launched=False))
        elif match := NODE_FAILED.search(line):
            found.append(TaskFailure(match["node"], None, match["why"], launched=False))
        elif match := ENDED.search(line):
            node = "" if set(match["node"]) & set("[,") else match["node"]
            found.append(TaskFailure(node, int(match["rank"]), match["why"]))
    return found


def not_executed(log: str) -> str:
    """Return why slurmstepd could not start the program of a rank with this log, or nothing."""
    match = NOT_EXECUTED.search(log)
    return match["why"] if match else ""
