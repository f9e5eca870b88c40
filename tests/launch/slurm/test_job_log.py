"""The last error in a job's log says why a job without a report has ended."""

from pathlib import Path

import pytest

from launch.slurm.records.job_log import last_error, was_ended_by_slurm

KILLED = """\
2026-11-28 22:10:01 attempt 12.0.0 on n1; logs in runs/a/logs/12.0.0
/var/spool/slurmd/job00012/slurm_script: line 32: 20412 Killed                  /venv/python -u -m x
srun: error: n2: task 1: Exited with exit code 137
slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-28T22:12:25 ***
"""
FATAL = """\
submitit INFO (2026-11-28 22:10:00,123) - Starting with JobEnvironment(job_id=12)
srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU are mutually exclusive
2026-11-28 22:10:03 attempt 12.0.1 on n1
"""
TRACEBACK = """\
submitit ERROR (2026-11-28 22:10:00,123) - Submitted job triggered an exception
Traceback (most recent call last):
  File "x.py", line 3, in fail
    raise error
OSError: [Errno 28] No space left on device: 'history.jsonl'
"""
MEMORY = "slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some were OOM Killed.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KILLED, "Killed"),
        (FATAL, "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU are mutually exclusive"),
        (TRACEBACK, "OSError: [Errno 28] No space left on device: 'history.jsonl'"),
        (KILLED + MEMORY, MEMORY.strip()),
        ("all is well\n", ""),
    ],
)
def test_the_last_error_is_quoted(text: str, expected: str, tmp_path: Path) -> None:
    log = tmp_path / "job-12.log"
    assert last_error(log) == ""
    log.write_text(text)
    assert last_error(log) == expected


def test_a_job_that_slurm_ended_is_known_by_its_log(tmp_path: Path) -> None:
    log = tmp_path / "job-12.log"
    job = "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-28T22:12:25"
    for text, expected in (
        (f"{job} ***", True),
        (f"{job} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", True),
        (f"{job} DUE TO TIME LIMIT ***", False),
        ("slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-28T22:12:25 ***", False),
    ):
        log.write_text(text)
        assert was_ended_by_slurm(log) == expected
