"""The state of a run follows from the strongest evidence."""

from typing import Any

import pytest

from launch.overview.state import Evidence, judge
from launch.slurm.api.jobs import QueuedJob, job_from
from launch.slurm.records.history import Outcome, OutcomeKind
from pipeline.runs.summary import Metrics

FAILED = Outcome("7.0.0", "crashed", 0)


def state(**seen: Any) -> str:
    nothing: dict[str, Any] = {
        "finished": False,
        "cancelled": False,
        "job": None,
        "queued": False,
        "slurm_answers": True,
        "held": False,
        "last_outcome": None,
        "metrics": Metrics(),
        "now": 10_000.0,
    }
    return judge(Evidence(**nothing | seen))[0]


def job(name: str) -> QueuedJob:
    return job_from(f"7|{name}|1:00|2|N/A||Resources")


def test_a_result_counts_more_than_a_job_and_a_job_more_than_earlier_outcomes() -> None:
    assert state(finished=True, job=job("RUNNING"), last_outcome=FAILED) == "finished"
    assert state(job=job("PENDING"), queued=True, last_outcome=FAILED) == "pending"
    assert state(job=job("RUNNING"), queued=True, cancelled=True) == "cancelling"
    assert state(job=job("COMPLETING"), queued=True, cancelled=True) == "completing"
    assert state(queued=True, cancelled=True, last_outcome=FAILED) == "cancelled"


def test_without_an_answer_of_slurm_a_queued_run_is_unknown() -> None:
    assert state(queued=True, slurm_answers=False, last_outcome=FAILED) == "unknown"
    assert state(queued=True, slurm_answers=False, held=True) == "running"
    assert state(slurm_answers=False, held=True) == "running"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("crashed", "failed"), ("mistake", "failed"), ("stopped", "stopped"), ("done", "finished")],
)
def test_without_a_job_the_last_outcome_decides(kind: OutcomeKind, expected: str) -> None:
    assert state(queued=True, last_outcome=Outcome("7.0.0", kind, 0)) == expected


@pytest.mark.parametrize(
    ("ended", "quiet_seconds", "expected"),
    [
        ("failed", 0, "failed"),
        ("interrupted", 0, "stopped"),
        ("", 10, "running"),
        ("", 601, "lost"),
    ],
)
def test_outside_slurm_the_last_report_decides(
    ended: str, quiet_seconds: float, expected: str
) -> None:
    said = {"status": ended} if ended else {}
    metrics = Metrics(ended=said, updated_at=10_000 - quiet_seconds)
    assert state(metrics=metrics) == expected
