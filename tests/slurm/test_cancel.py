"""launch/cancel.py and launch/resume.py with real jobs."""

from pathlib import Path

from pipeline.runs.find import CANCELLED
from tests.launch.queued_runs import queued_run, run_program
from tests.slurm.cluster import Cluster, wait_until

SAVING = """
trap 'echo asked >> {0}/asked; sleep 3; mkdir {0}/checkpoints/step-00000007; exit 0' USR2
touch {0}/ready
while :; do sleep 0.1; done
"""


def submit_saving(cluster: Cluster, runs_dir: Path, before: str = "true") -> tuple[Path, str]:
    """A run whose only rank saves when asked, and whose job then ends."""
    run_dir = runs_dir / "test-a"
    script = runs_dir / "rank.sh"
    script.write_text(SAVING.format(run_dir))
    job = cluster.submit(f"{before}; srun bash {script}", "--output=/dev/null")
    return queued_run(runs_dir, "test-a", job), job


def test_a_running_job_is_asked_once_and_saves_before_it_ends(
    cluster: Cluster, tmp_path: Path
) -> None:
    run_dir, _ = submit_saving(cluster, tmp_path)
    wait_until((run_dir / "ready").exists, lambda: "no rank", 30)
    done = run_program("cancel.py", run_dir, cluster=cluster)
    assert (done.returncode, done.stderr) == (0, "")
    assert "saved step 7" in done.stdout
    assert (run_dir / "asked").read_text() == "asked\n"
    assert (run_dir / CANCELLED).exists()
    assert "cancelled" in run_program("status.py", run_dir, cluster=cluster).stdout


def test_ranks_that_start_after_the_cancel_are_asked_too(cluster: Cluster, tmp_path: Path) -> None:
    run_dir, job = submit_saving(cluster, tmp_path, before="sleep 5")
    cluster.wait_for(job, "RUNNING")
    done = run_program("cancel.py", run_dir, cluster=cluster)
    assert done.returncode == 0
    assert not run_program("cancel.py", run_dir, cluster=cluster).stdout


def test_ranks_that_do_not_end_in_time_are_reported_and_end_with_now(
    cluster: Cluster, tmp_path: Path
) -> None:
    job = cluster.submit("srun sh -c 'trap : USR2; while :; do sleep 0.1; done'")
    run_dir = queued_run(tmp_path, "test-a", job)
    cluster.wait_for(job, "RUNNING")
    wait_until(lambda: len(cluster.rank_processes(job)) > 0, lambda: "no rank", 20)
    done = run_program("cancel.py", run_dir, "--wait-seconds=3", cluster=cluster)
    assert done.returncode == 1
    assert "cancel.py" in done.stdout
    assert "--now" in done.stdout
    done = run_program("cancel.py", run_dir, "--now", cluster=cluster)
    assert done.returncode == 0
    cluster.wait_for(job, "CANCELLED")


def test_a_pending_job_leaves_the_queue_at_once(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("true", "--begin=now+1hour")
    run_dir = queued_run(tmp_path, "test-a", job)
    refused = run_program("resume.py", run_dir, cluster=cluster)
    assert refused.returncode == 2
    assert "launch/cancel.py" in refused.stderr
    done = run_program("cancel.py", run_dir, cluster=cluster)
    assert done.returncode == 0
    assert cluster.job(job)["JobState"] == "CANCELLED"
    assert "no checkpoint" in done.stdout
