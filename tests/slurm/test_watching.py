"""launch/watch.py acts on real jobs, once."""

import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.launch.queued_runs import failed_on, queued_run, run_program
from tests.slurm.cluster import Cluster, start_cluster, wait_until
from tests.slurm.conftest import require_cluster
from tests.slurm.settings import Hardware
from tests.support.run_folders import run_started, write_events


def watch(cluster: Cluster, *arguments: str | Path) -> list[str]:
    done = run_program("watch.py", "--once", *arguments, cluster=cluster)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_job_excludes_a_failing_node_once(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("true", "--begin=now+1hour", "--exclude=n4")
    queued_run(tmp_path, "test-a", job)
    queued_run(tmp_path, "test-b", "", [failed_on("n1.site.org", f"1.0.{i}") for i in range(3)])
    (line,) = watch(cluster, tmp_path)
    assert "n1" in line
    assert cluster.job(job)["ExcNodeList"] == "n1,n4"
    assert watch(cluster, tmp_path) == []


def test_a_stalled_job_is_reported_once(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("sleep 300", "--output=/dev/null")
    run_dir = queued_run(tmp_path, "test-a", job)
    write_events(run_dir, run_started(run_dir))
    cluster.wait_for(job, "RUNNING")
    assert watch(cluster, tmp_path) == []
    time.sleep(2.5)
    (line,) = watch(cluster, "--stalled-minutes=0.03", tmp_path)
    assert "test-a" in line
    assert watch(cluster, "--stalled-minutes=0.03", tmp_path) == []
    later = time.time() - 2
    os.utime(run_dir / "metrics.jsonl", (later, later))
    assert watch(cluster, tmp_path) == []


@pytest.fixture(scope="module")
def slow_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """It delays requeued jobs by two minutes, and starts no job while a file `broken` exists."""
    require_cluster()
    folder = tmp_path_factory.mktemp("slow")
    prolog = folder / "prolog"
    prolog.write_text(f"#!/bin/sh\ntest ! -e {folder}/broken\n")
    prolog.chmod(0o755)
    credentials = f"socket={folder}/munge.socket,cred_expire=120"
    nodes = Hardware(nodes=2)
    with start_cluster(folder, nodes, AuthInfo=credentials, Prolog=prolog) as cluster:
        yield cluster


def test_a_requeued_job_starts_without_the_delay(slow_cluster: Cluster, tmp_path: Path) -> None:
    job = slow_cluster.submit("sleep 300", "--requeue", "--output=/dev/null")
    queued_run(tmp_path, "test-a", job)
    slow_cluster.wait_for(job, "RUNNING")
    slow_cluster.run("scontrol", "requeue", job)
    slow_cluster.wait_for(job, "PENDING")
    wait_until(lambda: bool(watch(slow_cluster, tmp_path)), lambda: "nothing was done", 20)
    assert slow_cluster.wait_for(job, "RUNNING", 30)["Restarts"] == "1"
    assert watch(slow_cluster, tmp_path) == []
    slow_cluster.run("scancel", job)


def test_a_job_that_failed_to_start_is_released(slow_cluster: Cluster, tmp_path: Path) -> None:
    broken = slow_cluster.folder / "broken"
    broken.touch()
    job = slow_cluster.submit("sleep 300", "--requeue", "--output=/dev/null")
    queued_run(tmp_path, "test-a", job)
    wait_until(
        lambda: "held" in slow_cluster.job(job)["Reason"], lambda: str(slow_cluster.job(job)), 30
    )
    broken.unlink()
    assert any("released" in line for line in watch(slow_cluster, tmp_path))
    assert "held" not in slow_cluster.job(job)["Reason"].lower()
