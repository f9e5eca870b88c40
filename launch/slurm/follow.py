"""Following a job from the login node: its place in the queue, then the output of rank 0."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from launch.slurm.api.cli import SlurmError, show, slurm
from launch.slurm.records.attempt import LATEST, LOGS
from launch.slurm.records.submission import Submission
from pipeline.runs.folder import RESULT
from pipeline.system.command import command_line
from pipeline.system.text import printable

ENDED = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "PREEMPTED"),
)
ASK_SECONDS = 5.0
READ_SECONDS = 0.5
FAILURES_IN_A_ROW = 24
"""How often SLURM may fail to answer, for example while its controller restarts."""


def follow(submission: Submission) -> int:
    """Print what happens to a job until it ends; return 0 if the run is finished, else 1.

    Ctrl-C stops following and leaves the job alone.
    """
    try:
        state = _follow(submission)
    except KeyboardInterrupt:
        status = command_line("launch/status.py", submission.run_dir)
        print(f"\njob {submission.job_id} continues; see {status}")
        return 0
    finished = (submission.run_dir / RESULT).exists()
    print(f"job {submission.job_id} has ended: {state}")
    return 0 if finished else 1


def _follow(submission: Submission) -> str:
    logs = [
        GrowingLog(submission.run_dir / LOGS / f"job-{submission.job_id}.log"),
        GrowingLog(submission.run_dir / LOGS / LATEST / "rank-0.log"),
    ]
    said, failures, asked_at = "", 0, 0.0
    while True:
        if time.monotonic() - asked_at > ASK_SECONDS:
            asked_at = time.monotonic()
            try:
                state, sentence = describe(submission.job_id)
                failures = 0
            except SlurmError as error:
                failures += 1
                if failures > FAILURES_IN_A_ROW:
                    raise
                state, sentence = "UNKNOWN", f"SLURM does not answer: {error}"
            if sentence != said:
                said = sentence
                print(printable(sentence), flush=True)
            if state in ENDED:
                print_new(logs)
                return state
        print_new(logs)
        time.sleep(READ_SECONDS)


def describe(job_id: str) -> tuple[str, str]:
    """Return the state of a job, and a line that describes it."""
    record = show("job", job_id)[0]
    state = record["JobState"]
    if state != "PENDING":
        return state, f"job {job_id}: {state} on {record.get('NodeList', 'no nodes')}"
    reason, start = record.get("Reason", "None"), record.get("StartTime", "Unknown")
    place = _place_in_queue(job_id)
    return state, f"job {job_id}: {place} ({reason}), expected start: {start}"


def _place_in_queue(job_id: str) -> str:
    order = ["--all", "--array", "--states=PENDING", "--sort=-p,i", "--format=%i"]
    queued = slurm("squeue", "--noheader", *order).split()
    if job_id not in queued:
        return "pending"
    return f"number {queued.index(job_id) + 1} of {len(queued)} pending"


@dataclass
class GrowingLog:
    """A log that grows, and is replaced by another file when an attempt starts."""

    path: Path
    _file: TextIO | None = None
    _inode: int = field(default=0)

    def new_lines(self) -> Iterator[str]:
        """Yield what was written since the last call."""
        if self._file is not None:
            yield from self._file
        try:
            inode = self.path.stat().st_ino
        except OSError:
            return
        if inode != self._inode:
            if self._file is not None:
                self._file.close()
            self._file, self._inode = self.path.open(errors="replace"), inode
            yield from self._file


def print_new(logs: list[GrowingLog]) -> None:
    """Print what was written to the logs since the last call."""
    for log in logs:
        for line in log.new_lines():
            sys.stdout.write(printable(line))
    sys.stdout.flush()
