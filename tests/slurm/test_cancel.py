"""launch/cancel.py and launch/resume.py, with real jobs and processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.find import CANCELLED
from pipeline.runs.folder import RESULT
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.queued_runs import REPOSITORY, queued_run, run_program
from tests.slurm.test_status import held
from tests.support.run_folders import config, hold_once

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


def test_a_running_job_saves_before_it_ends_and_is_asked_once(
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


def test_ranks_that_do_not_end_in_time_are_told_of_and_end_with_now(
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


def test_a_run_on_this_machine_is_asked_by_sigterm(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    with held(run_dir) as process:
        refused = run_program("resume.py", run_dir)
        assert refused.returncode == 2
        assert f"process {process.pid}" in refused.stderr
        done = run_program("cancel.py", run_dir)
        assert done.returncode == 0, done.stderr
        assert process.wait(10) == -15


def test_the_launcher_of_a_run_on_this_machine_is_asked_in_place_of_a_rank(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    module = tmp_path / "holding.py"
    module.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\n"
        "from pipeline.runs.folder import hold_run_folder\n"
        "from tests.support.run_folders import config\n"
        f"run_dir = Path({str(run_dir)!r})\n"
        "with hold_run_folder(config(run_dir.parent, run_dir=run_dir)):\n"
        "    (run_dir / 'ready').touch()\n"
        "    time.sleep(300)\n"
    )
    launch = (
        "import launch.local.ranks as l; print(l.run_ranks(['holding'], ranks=1, cpu_only=True))"
    )
    environment = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", launch], env=environment, stdout=subprocess.PIPE, text=True
    ) as launcher:
        wait_until((run_dir / "ready").exists, lambda: "no rank", 30)
        done = run_program("cancel.py", run_dir)
        assert f"process {launcher.pid} is asked" in done.stdout
        assert launcher.communicate()[0].strip() == str(128 + 15)
    assert done.returncode == 0


def test_a_run_that_nobody_runs_cannot_be_cancelled(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    done = run_program("cancel.py", run_dir)
    assert done.returncode == 2
    assert "no job and no process" in done.stderr


@pytest.mark.parametrize("program", ["cancel.py", "resume.py"])
def test_a_finished_run_is_left_as_it_is(program: str, tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    (run_dir / RESULT).write_text("{}")
    done = run_program(program, run_dir)
    assert done.returncode == 2
    assert "is finished" in done.stderr


@pytest.mark.parametrize("program", ["cancel.py", "resume.py"])
def test_a_folder_that_is_no_run_is_refused(program: str, tmp_path: Path) -> None:
    done = run_program(program, tmp_path)
    assert done.returncode == 2
    assert "is no run's folder" in done.stderr


def test_without_slurm_the_command_for_this_machine_is_printed(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    done = run_program("resume.py", run_dir, "train.log_every_steps=5")
    assert done.returncode == 0
    expected = f"submit.py --local {run_dir}/config.yaml run_dir={run_dir} train.log_every_steps=5"
    assert expected in done.stdout
