"""A sweep on a real cluster is one job array, and its points are ordinary runs."""

import json
import statistics
from pathlib import Path

import pytest

from launch.slurm.records.submission import last_submission
from launch.sweep.job_array import expect_array
from pipeline.runs.folder import RESULT
from tests.launch.queued_runs import run_program
from tests.multiprocess.runs import result, write_recipe
from tests.slurm.cluster import Cluster, wait_until
from tests.support.images import make_dataset

SETTINGS = ("train.steps=40", "slurm.cpus_per_rank=1", "slurm.run_dir_is_shared=true")


def test_more_points_than_a_job_array_allows_are_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    expect_array(1001)
    with pytest.raises(ValueError, match=r"1,002 points .* 1,001 \(MaxArraySize\)"):
        expect_array(1002)


def test_a_sweep_trains_all_points_at_most_two_at_a_time(cluster: Cluster, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=90, val=23))
    swept = ("--sweep", "optim.lr=0.05,0.1", "--sweep", "seed=0,1", "--parallel", "2")
    command = (*swept, "--ranks", "1", str(recipe), f"runs_dir={runs}", *SETTINGS)
    command = (*command, "slurm.sbatch.hold=true")  # none may finish before it is released
    limits = ("--sweep", "slurm.time_limit=1:00:00,2:00:00")
    refused = run_program("submit.py", *command, *limits, cluster=cluster)
    assert refused.returncode == 2
    assert "time_limit=2-00-00 needs another kind of job" in refused.stderr
    shown = run_program("submit.py", "--dry-run", *command, cluster=cluster).stdout
    assert "#SBATCH --array=0-3%2\n" in shown
    assert not runs.exists()
    done = run_program("submit.py", *command, cluster=cluster)
    assert done.returncode == 0, done.stderr

    (sweep,) = runs.iterdir()
    points = [sweep / f"lr={lr}_seed={seed}" for lr in ("0.05", "0.1") for seed in (0, 1)]
    assert list(sweep.rglob("code")) == [sweep / "submissions" / "001" / "code"]
    jobs = [submission.job_id for run in points if (submission := last_submission(run))]
    array = jobs[0].partition("_")[0]
    assert jobs == [f"{array}_{index}" for index in range(4)]
    again = run_program("submit.py", *command, cluster=cluster)
    assert again.returncode == 2, again.stdout
    assert f"already has job {jobs[0]}" in again.stderr
    cluster.run("scontrol", "release", array)

    def ended() -> bool:
        return all(cluster.job(job)["JobState"] not in ("PENDING", "RUNNING") for job in jobs)

    wait_until(ended, lambda: cluster.run("squeue"), 280)
    for run in points:
        (log,) = run.glob("logs/job-*.log")
        assert (run / RESULT).exists(), log.read_text()
    spans = [(cluster.job(job)["StartTime"], cluster.job(job)["EndTime"]) for job in jobs]
    at_starts = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_starts) == 2
    shown = run_program("status.py", "--json", "--sweep", sweep, cluster=cluster)
    for line, runs_of_it in zip(
        json.loads(shown.stdout)["lines"], (points[:2], points[2:]), strict=True
    ):
        errors = [result(run)["top1_error_percent"] for run in runs_of_it]
        assert line["mean_top1_error_percent"] == statistics.mean(errors)
        assert line["sample_standard_deviation"] == statistics.stdev(errors)
        assert (line["finished"], line["unfinished"]) == (2, 0)
