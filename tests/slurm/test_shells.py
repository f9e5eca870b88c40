"""A job is the same whatever the submitting shell's own job, its profile or the nodes set."""

import json
import subprocess
from pathlib import Path

import pytest

from launch.slurm.records.submission import last_submission
from launch.slurm.submit.acceptance import differences, surprises
from tests.launch.queued_runs import command_of, environment_of
from tests.multiprocess.runs import result
from tests.slurm.cluster import Cluster
from tests.slurm.trainings import Training, digits_in

OF_ANOTHER_JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "n4",
    "SLURM_ARRAY_JOB_ID": "4711",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_RESTART_COUNT": "3",
    "SLURM_GPUS": "1",
    "SLURM_GPUS_PER_TASK": "1",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_MEM_PER_NODE": "200",
    "SLURM_TRES_PER_TASK": "gres:gpu:1",
    "SLURM_DISTRIBUTION": "cyclic",
    "SLURM_CPU_BIND": "mask_cpu:0x8",
    "SLURM_HINT": "nomultithread",
    "SLURM_THREADS_PER_CORE": "1",
    "SLURM_NTASKS": "1",
    "SLURM_NNODES": "1",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_TIME_FORMAT": "relative",
    "SRUN_EXPORT_ENV": "NONE",
    "SQUEUE_STATES": "COMPLETED",
    "SUBMITIT_EXECUTOR": "local",
    "RANK": "3",
    "WORLD_SIZE": "8",
    "MASTER_ADDR": "192.0.2.1",
    "OMPI_COMM_WORLD_RANK": "3",
}
ON_THE_NODES = {
    "SLURM_DISTRIBUTION": "cyclic",
    "SLURM_MEM_PER_CPU": "100",
    "SLURM_GPUS": "1",
    "SLURM_CPU_BIND": "mask_cpu:0x8",
    "SLURM_HINT": "nomultithread",
    "SRUN_CPUS_PER_TASK": "3",
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_in(tmp_path_factory.mktemp("shells"))


def submit(
    cluster: Cluster, shell: dict[str, str], *arguments: object
) -> "subprocess.CompletedProcess[str]":
    """Submit in a shell with more variables."""
    return subprocess.run(
        command_of(
            "submit.py",
            *arguments,
            *("slurm.run_dir_is_shared=true", "slurm.cpus_per_rank=1", "launch.preflight=false"),
        ),
        env=environment_of(cluster) | shell,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("where", ["shell", pytest.param("nodes", marks=pytest.mark.exhaustive)])
def test_a_run_trains_as_asked_whatever_a_shell_or_a_node_says(
    where: str, cluster: Cluster, recipe: Path, tmp_path: Path
) -> None:
    shell = OF_ANOTHER_JOB if where == "shell" else {}
    setup = [f"export {name}={value}" for name, value in ON_THE_NODES.items()]
    done = submit(
        cluster,
        shell,
        *("--nodes", 2, "--ranks", 2, recipe, f"run_dir={tmp_path / 'run'}", "train.steps=8"),
        *("slurm.memory=500M", "slurm.gpus_per_node=2", "train.global_batch=32"),
        *([f"slurm.setup={json.dumps(setup)}"] if where == "nodes" else []),
    )
    assert done.returncode == 0, done.stderr
    training = Training(cluster, tmp_path / "run")
    training.wait_for_end()
    assert training.outcomes == ["done"]
    assert result(training.run_dir)["world_size"] == 4
    assert surprises_of(training) == []
    attempt = next((training.run_dir / "attempts").iterdir())
    hosts = [
        json.loads((attempt / f"rank-{rank:05}.json").read_text())["host"] for rank in range(4)
    ]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3], "ranks of a node follow each other"


def surprises_of(training: Training) -> list[str]:
    record = training.cluster.job(training.job_id)
    return differences(training.submission, record)


@pytest.mark.exhaustive
def test_options_of_a_profile_fill_what_is_open_and_never_win(
    cluster: Cluster, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = {
        "SBATCH_PARTITION": "urgent",
        "SBATCH_TIMELIMIT": "7",
        "SBATCH_NO_REQUEUE": "1",
        "SBATCH_MEM_PER_CPU": "100",
        "SBATCH_ARRAY_INX": "0-3",
        "SBATCH_EXPORT": "NONE",
    }
    arguments = ("--nodes", 2, "--ranks", 1, recipe, f"run_dir={tmp_path / 'run'}")
    arguments = (*arguments, "slurm.partition=main", "slurm.sbatch.hold=true")
    shown = submit(cluster, profile, "--dry-run", *arguments)
    done = submit(cluster, profile, *arguments)
    assert done.returncode == 0, done.stderr
    for name, value in profile.items():
        assert f"{name}={value} in this shell" in done.stderr
        assert f"{name}={value} in this shell" in shown.stderr
    assert "#SBATCH --time=7\n" in shown.stdout
    submission = last_submission(tmp_path / "run")
    assert submission
    job = cluster.job(submission.job_id)
    assert (job["Partition"], job["TimeLimit"], job["Requeue"]) == ("main", "00:07:00", "1")
    assert "ArrayTaskId" not in job
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    assert surprises(submission) == []
    cluster.run("scontrol", "update", f"jobid={submission.job_id}", "Requeue=0", "Partition=urgent")
    (warning,) = surprises(submission)
    assert "Partition is urgent instead of main, Requeue is 0 instead of 1" in warning
