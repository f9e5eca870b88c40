"""What launch/status.py says of runs, with a real cluster and without any."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launch.overview.state import Evidence, judge
from launch.slurm.api.jobs import QueuedJob, job_from
from launch.slurm.supervise.restart_policy import Ending, Outcome
from pipeline.runs.find import find_runs
from pipeline.runs.folder import RESULT
from pipeline.runs.summary import Metrics, read_metrics
from pipeline.tracking import events
from pipeline.tracking.jsonl import METRICS
from tests.slurm.cluster import Cluster
from tests.slurm.queued_runs import (
    REPOSITORY,
    began,
    command_of,
    failed_on,
    progress,
    queued_run,
    run_program,
    tell,
)
from tests.support.run_folders import config, hold_once

HOLD = """
import sys, time
from pathlib import Path
from pipeline.runs.folder import hold_run_folder
from tests.support.run_folders import config
run_dir = Path(sys.argv[1])
with hold_run_folder(config(run_dir.parent, run_dir=run_dir)):
    print("held", flush=True)
    time.sleep(300)
"""


@contextmanager
def held(run_dir: Path) -> "Generator[subprocess.Popen[str]]":
    """A process that holds a run as training does, and that SIGTERM ends."""
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


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


def status(*arguments: str | Path, cluster: Cluster | None = None) -> Any:
    done = run_program("status.py", "--json", *arguments, cluster=cluster)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_result_says_more_than_a_job_a_job_more_than_what_came_before() -> None:
    failed = Outcome("7.0.0", "crashed", 0)
    assert state(finished=True, job=job("RUNNING"), last_outcome=failed) == "finished"
    assert state(job=job("PENDING"), queued=True, last_outcome=failed) == "pending"
    assert state(job=job("RUNNING"), queued=True, cancelled=True) == "cancelling"
    assert state(job=job("COMPLETING"), queued=True, cancelled=True) == "completing"
    assert state(queued=True, cancelled=True, last_outcome=failed) == "cancelled"


def test_without_an_answer_of_slurm_the_state_of_a_queued_run_is_unknown() -> None:
    failed = Outcome("7.0.0", "crashed", 0)
    assert state(queued=True, slurm_answers=False, last_outcome=failed) == "unknown"
    assert state(queued=True, slurm_answers=False, held=True) == "running"
    assert state(slurm_answers=False, held=True) == "running"


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("crashed", "failed"), ("mistake", "failed"), ("stopped", "stopped"), ("done", "finished")],
)
def test_a_run_whose_job_is_gone_is_as_its_last_attempt(ending: Ending, expected: str) -> None:
    assert state(queued=True, last_outcome=Outcome("7.0.0", ending, 0)) == expected


@pytest.mark.parametrize(
    ("ended", "quiet_seconds", "expected"),
    [
        ("failed", 0, "failed"),
        ("interrupted", 0, "stopped"),
        ("", 10, "running"),
        ("", 601, "lost"),
    ],
)
def test_a_run_outside_slurm_is_as_it_said_itself(
    ended: str, quiet_seconds: float, expected: str
) -> None:
    said = {"status": ended} if ended else {}
    metrics = Metrics(ended=said, updated_at=10_000 - quiet_seconds)
    assert state(metrics=metrics) == expected


def test_a_process_that_begins_after_one_that_ended_is_the_one_that_counts(tmp_path: Path) -> None:
    tell(tmp_path, began(tmp_path), progress(10), events.RunEnded("failed", "why"))
    assert read_metrics(tmp_path).ended["message"] == "why"
    tell(tmp_path, began(tmp_path), progress(12))
    metrics = read_metrics(tmp_path)
    assert (metrics.starts, metrics.ended, metrics.progress["step"]) == (2, {}, 12)


def test_torn_lines_do_not_count(tmp_path: Path) -> None:
    tell(tmp_path, progress(10))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"event": "progress", "time": 1.0, "ste')
    assert read_metrics(tmp_path).progress["step"] == 10


def test_checkpoints_and_other_folders_are_no_runs(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    (tmp_path / "other").mkdir()
    average = tmp_path / "average"
    average.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (average / name).touch()
    assert find_runs([tmp_path]) == [run_dir]
    assert find_runs([run_dir]) == [run_dir]


def test_a_place_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    done = run_program("status.py", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere is not there; name" in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_on_this_machine_are_shown_without_slurm(tmp_path: Path) -> None:
    running, finished = hold_once(config(tmp_path)), hold_once(config(tmp_path, seed=1))
    (finished / RESULT).write_text("{}")
    tell(running, began(running), progress(20))
    (running / "checkpoints/step-00000010").mkdir()
    with held(running):
        shown = {each["name"]: each for each in status(tmp_path)}
        lone = status(running)
    assert shown[finished.name]["state"] == "finished"
    assert shown[running.name] | {"checkpoint_age_seconds": 0} == {
        **shown[running.name],
        "state": "running",
        "step": 20,
        "last_step": 1000,
        "images_per_second": 1234.5,
        "checkpoint_step": 10,
        "checkpoint_age_seconds": 0,
        "restarts": 0,
    }
    assert lone["world_size"] == 2
    assert status(running)["state"] == "running"  # it told something moments ago
    os.utime(running / METRICS, (0, 0))
    assert status(running)["state"] == "lost"


def test_looking_at_a_run_never_keeps_it_from_starting(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    with subprocess.Popen(
        ["sh", "-c", f"while :; do {' '.join(command_of('status.py', tmp_path))}; done"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as looking:
        for _ in range(100):
            hold_once(config(tmp_path, run_dir=run_dir))
            time.sleep(0.02)
        os.killpg(looking.pid, 9)


def test_a_failed_run_shows_its_attempts_its_warnings_and_the_log_of_the_rank_that_failed(
    cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "test-a/logs/99.0.1/rank-3.log"
    last = Outcome("99.0.1", "crashed", 10, error="RuntimeError: bad", log=str(log))
    run_dir = queued_run(tmp_path, "test-a", "99", [failed_on("n1", "99.0.0"), last])
    log.write_text("the words of rank 3\n")
    (log.parent / "rank-0.log").write_text("the words of rank 0\n")
    tell(run_dir, began(run_dir), events.Warned("disk full"))
    done = run_program("status.py", run_dir, cluster=cluster)
    assert done.returncode == 0
    for part in ("failed", "99.0.0", "disk full", "the words of rank 3", "launch/resume.py"):
        assert part in done.stdout
    assert "rank 0" not in done.stdout


def test_all_jobs_are_asked_for_in_one_question(cluster: Cluster, tmp_path: Path) -> None:
    asleep = cluster.submit("sleep 300", "--output=/dev/null", "--time=30")
    waiting = cluster.submit("true", "--begin=now+1hour")
    for name, job_id in (("test-a", asleep), ("test-b", waiting), ("test-c", "98765")):
        queued_run(tmp_path / "runs", name, job_id)
    cluster.wait_for(asleep, "RUNNING")
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho asked >> {tmp_path}/asked\nexec /usr/bin/squeue "$@"\n')
    squeue.chmod(0o755)
    path = f"{squeue.parent}:{cluster.environment['PATH']}"
    answer = subprocess.run(
        command_of("status.py", "--json", tmp_path / "runs"),
        env=cluster.environment | {"PATH": path},
        capture_output=True,
        check=True,
    )
    shown = {each["name"]: each for each in json.loads(answer.stdout)}
    assert [shown[name]["state"] for name in sorted(shown)] == ["running", "pending", "lost"]
    assert shown["test-b"]["reason"] == "BeginTime"
    assert shown["test-a"]["time_left"].startswith(("29:", "30:"))
    assert (tmp_path / "asked").read_text() == "asked\n"
