"""launch/status.py with a real cluster."""

import json
import subprocess
from pathlib import Path

from launch.slurm.records.history import Outcome
from pipeline.tracking import events
from tests.launch.queued_runs import command_of, failed_on, queued_run, run_program
from tests.slurm.cluster import Cluster
from tests.support.run_folders import run_started, write_events


def test_a_failed_run_shows_its_attempts_its_warnings_and_the_log_of_the_failed_rank(
    cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "test-a/logs/99.0.1/rank-3.log"
    last = Outcome("99.0.1", "crashed", 10, error="RuntimeError: bad", log=str(log))
    run_dir = queued_run(tmp_path, "test-a", "99", [failed_on("n1", "99.0.0"), last])
    log.write_text("the words of rank 3\n")
    (log.parent / "rank-0.log").write_text("the words of rank 0\n")
    write_events(run_dir, run_started(run_dir), events.Warned("disk full"))
    done = run_program("status.py", run_dir, cluster=cluster)
    assert done.returncode == 0
    for part in ("failed", "99.0.0", "disk full", "the words of rank 3", "launch/resume.py"):
        assert part in done.stdout
    assert "rank 0" not in done.stdout


def test_slurm_is_asked_once_for_all_jobs(cluster: Cluster, tmp_path: Path) -> None:
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
