"""A run does not mistake another job with the same number for its own."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from launch.slurm.records.submission import RECORD, last_submission
from tests.launch.queued_runs import queued_run, run_program
from tests.slurm.cluster import Cluster


def innocent(cluster: Cluster, tmp_path: Path, kind: str) -> str:
    """Start a job that has nothing to do with a run; return its number."""
    if kind == "wrapped":
        job = cluster.submit("sleep 300", "--output=/dev/null")
    else:
        script = tmp_path / "innocent.sh"
        script.write_text("#!/bin/sh\nsleep 300\n")
        job = cluster.run("sbatch", "--parsable", "--output=/dev/null", str(script))
    cluster.wait_for(job, "RUNNING")
    return job


def state(cluster: Cluster, run_dir: Path) -> tuple[str, str]:
    done = run_program("status.py", "--json", run_dir, cluster=cluster)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    return shown["state"], shown["reason"]


def make_old(run_dir: Path) -> None:
    """Make the record of a run's submission an hour old."""
    submission = last_submission(run_dir)
    assert submission
    hour_ago = submission.submitted_at - 3600
    replace(submission, submitted_at=hour_ago).save()
    os.utime(submission.folder / RECORD, (hour_ago, hour_ago))


@pytest.mark.parametrize("kind", ["wrapped", "script"])
def test_a_job_with_the_number_of_an_old_one_is_left_alone(
    kind: str, cluster: Cluster, tmp_path: Path
) -> None:
    job = innocent(cluster, tmp_path, kind)
    run_dir = queued_run(tmp_path, "test-a", job)
    make_old(run_dir)
    assert state(cluster, run_dir) == ("lost", "its job is gone and left no report")
    assert "test-a" not in run_program("status.py", "--json", run_dir, cluster=cluster).stderr
    done = run_program("cancel.py", run_dir, "--now", cluster=cluster)
    assert done.returncode == 2
    assert "no job and no process on this machine runs" in done.stderr
    assert cluster.job(job)["JobState"] == "RUNNING"


def test_a_job_of_another_cluster_is_neither_shown_nor_cancelled(
    cluster: Cluster, tmp_path: Path
) -> None:
    job = innocent(cluster, tmp_path, "script")
    run_dir = queued_run(tmp_path, "test-a", job)
    submission = last_submission(run_dir)
    assert submission
    replace(submission, cluster="other").save()
    assert state(cluster, run_dir) == ("unknown", "its job is on cluster other, not on this one")
    done = run_program("cancel.py", run_dir, "--now", cluster=cluster)
    assert done.returncode == 2
    assert f"job {job} of {run_dir} is on cluster other" in done.stderr
    assert cluster.job(job)["JobState"] == "RUNNING"
