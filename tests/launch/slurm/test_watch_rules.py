"""What the watcher does about a job, and how often."""

from dataclasses import replace
from pathlib import Path

import pytest

from launch.slurm.api.jobs import QueuedJob, job_from
from launch.slurm.watch.rules import (
    RESUME,
    LostRun,
    NodeFailure,
    WatchedRun,
    WatchLimits,
    due_actions,
    failing_nodes,
    recovery,
)

LIMITS = WatchLimits(stalled_seconds=1800)
NOW = 1_000_000.0
HOUR = 3600.0


def pending(
    reason: str, restarts: int = 0, excluded: tuple[str, ...] = (), of: int = 4
) -> WatchedRun:
    job = QueuedJob("7", "PENDING", "1:00", 2, None, "", reason)
    return WatchedRun(Path("runs/a"), job, NOW, restarts, frozenset(excluded), of)


def commands(
    run: WatchedRun, failing: tuple[str, ...] = (), done: tuple[str, ...] = ()
) -> list[str]:
    return [" ".join(each.command) for each in due_actions(run, failing, done, LIMITS, NOW)]


def test_a_requeued_job_starts_at_once() -> None:
    assert commands(pending("BeginTime", restarts=1)) == ["scontrol update jobid=7 StartTime=now+2"]


def test_a_begin_time_that_the_owner_chose_is_left_alone() -> None:
    assert commands(pending("BeginTime")) == []


def test_a_completing_job_is_left_alone() -> None:
    job = job_from("7|COMPLETING|1:00|2|N/A|n1|BeginTime")
    assert commands(WatchedRun(Path("a"), job, NOW, 1)) == []


def test_each_requeue_is_started_once() -> None:
    (first,) = due_actions(pending("BeginTime", 1), (), (), LIMITS, NOW)
    assert commands(pending("BeginTime", 1), done=(first.key,)) == []
    assert commands(pending("BeginTime", 2), done=(first.key,)) != []


def test_a_job_that_slurm_holds_is_released_once_and_then_reported_once() -> None:
    run = pending("launch failed requeued held", 1)
    (release,) = due_actions(run, (), (), LIMITS, NOW)
    assert release.command == ("scontrol", "release", "7")
    (report,) = due_actions(run, (), (release.key,), LIMITS, NOW)
    assert report.command == ()
    assert "scontrol release 7" in report.message
    assert commands(run, done=(release.key, report.key)) == []


@pytest.mark.parametrize("reason", ["JobHeldUser", "JobHeldAdmin", "job requeued in held state"])
def test_a_job_that_a_person_holds_is_only_reported(reason: str) -> None:
    assert commands(pending(reason)) == [""]


@pytest.mark.parametrize("reason", ["Resources", "Priority", "Dependency", "None"])
def test_a_job_that_waits_its_turn_is_left_alone(reason: str) -> None:
    assert commands(pending(reason, restarts=3)) == []


def test_three_failures_within_a_day_make_a_failing_node() -> None:
    old = [NodeFailure("n1", NOW - 25 * HOUR), NodeFailure("n2", NOW - HOUR)]
    new = [NodeFailure("n1", NOW - 23 * HOUR), NodeFailure("n1", NOW - HOUR)]
    assert failing_nodes(old + new, LIMITS, NOW) == []
    assert failing_nodes([*old, *new, NodeFailure("n1", NOW)], LIMITS, NOW) == ["n1"]


def test_a_failing_node_is_added_to_the_excluded_ones() -> None:
    run = pending("Resources", excluded=("n4",))
    assert commands(run, ("n1",)) == ["scontrol update jobid=7 ExcNodeList=n1,n4"]
    assert commands(run, ("n4",)) == []


def test_a_node_that_a_job_needs_is_not_excluded() -> None:
    assert commands(pending("Resources", excluded=("n4",), of=3), ("n1",)) == [""]


def test_each_stall_of_a_running_job_is_reported_once() -> None:
    job = job_from("7|RUNNING|1:00|2|N/A|n[1-2]|None")
    stalled = WatchedRun(Path("a"), job, NOW - 1801)
    (report,) = due_actions(stalled, (), (), LIMITS, NOW)
    assert commands(stalled, done=(report.key,)) == []
    assert commands(WatchedRun(Path("a"), job, NOW - 1799)) == []
    again = WatchedRun(Path("a"), job, NOW)
    assert due_actions(again, (), (report.key,), LIMITS, NOW + 1801) != []


def test_a_job_that_has_just_started_is_not_stalled() -> None:
    job = QueuedJob("7", "RUNNING", "1:00", 2, NOW - 60, "n[1-2]", "")
    assert commands(WatchedRun(Path("a"), job, active_at=0.0)) == []


def test_a_lost_run_is_resumed_once_from_each_step_and_then_reported_once() -> None:
    lost = LostRun(Path("runs/a"), "7", 20, "Killed")
    resume = recovery(lost, ())
    assert resume
    assert resume.command[1:] == (str(RESUME), "runs/a")
    assert RESUME.is_file()
    assert "(Killed): resumed from step 20" in resume.message
    assert recovery(replace(lost, job_id="8", step=30), (resume.key,)) != resume
    again = replace(lost, job_id="8")
    report = recovery(again, (resume.key,))
    assert report
    assert report.command == ()
    assert "lost again without a new checkpoint" in report.message
    assert recovery(again, (resume.key, report.key)) is None
