"""The log of a job's batch script: why a job that left no other report has ended."""

import re
from pathlib import Path

from launch.slurm.records.attempt import LOGS
from pipeline.runs.summary import tail

LINES = 200
ERROR = re.compile(
    r"error|fatal|exception|killed|oom|given up|no space|cannot|could not|unable|refused|denied",
    re.IGNORECASE,
)
CONSEQUENCE = re.compile(r"Job step aborted|Exited with exit code|STEP \S+ ON|^\s|^Traceback")
"""Lines that report a consequence, or belong to a traceback."""
ENDED_BY_SLURM = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT (?!.*DUE TO TIME LIMIT)")
PREFIX = re.compile(r"^\S*(?:slurm_script|submission_file\S*): line [0-9]+: +[0-9]+ ")
"""The shell's prefix of the line about a program that a signal ended."""
COMMAND = re.compile(r" {2,}\S.*$")


def job_log(run_dir: Path, job_id: str) -> Path:
    """Return the log of a job's batch script."""
    return run_dir / LOGS / f"job-{job_id}.log"


def last_error(log: Path) -> str:
    """Return the last line of a job's log that reports an error; empty if there is none."""
    lines = [line for line in tail(log, LINES).splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.search(line) and not CONSEQUENCE.search(line)]
    if not errors:
        return ""
    line = errors[-1].strip()
    return COMMAND.sub("", PREFIX.sub("", line)) if PREFIX.search(line) else line


def was_ended_by_slurm(log: Path) -> bool:
    """Whether SLURM ended the job: for scancel, or to requeue it; not at its time limit."""
    return ENDED_BY_SLURM.search(tail(log, LINES)) is not None
