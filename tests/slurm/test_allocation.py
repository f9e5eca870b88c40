"""A run in an existing allocation: no other job, but the same restarts and records."""

import subprocess
from pathlib import Path

import pytest

from launch.slurm.records.submission import JobLayout
from launch.slurm.submit.allocation import layout_in
from pipeline.config.schema import Slurm
from tests.launch.queued_runs import command_of, environment_of, run_program
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.trainings import STEPS, Training, expect_like

SETTINGS = ("--ranks", 1, "launch.preflight=false", f"train.steps={STEPS}")


def test_a_run_in_an_allocation_survives_a_killed_rank(
    cluster: Cluster, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    command = command_of("submit.py", "--in-allocation", "--nodes", 2, recipe, *SETTINGS)
    with subprocess.Popen(
        ["salloc", "--nodes=3", "--job-name=debug", *command, f"run_dir={run_dir}"],
        env=environment_of(cluster),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as debug:
        training = Training(cluster, run_dir)
        wait_until((run_dir / "attempts").exists, lambda: "it does not start", 60)
        training.wait_for_step(20)
        (job_id,) = cluster.run("squeue", "--noheader", "--format=%i").split()
        cluster.rank_process(job_id, 1).kill()
        output, _ = debug.communicate(timeout=240)
    assert debug.returncode == 0, output
    assert training.outcomes == ["crashed", "done"]
    assert sorted(path.name for path in run_dir.glob("attempts/*")) == [
        f"{job_id}.0.0",
        f"{job_id}.0.1",
    ]
    assert "Top-1 error" in output
    assert cluster.run("squeue", "--noheader") == ""
    expect_like(training, whole)


@pytest.mark.parametrize(
    ("resources", "ranks"),
    [
        ({}, 1),
        ({"TresPerNode": "gres:gpu:2"}, 2),
        ({"TresPerNode": "gres/gpu:a100:4"}, 4),
        ({"TresPerJob": "gres:gpu:6"}, 2),
    ],
)
def test_there_is_a_rank_for_each_gpu_of_the_allocation(
    resources: dict[str, str], ranks: int
) -> None:
    layout = layout_in(Slurm(), {"NumCPUs": "24", **resources}, nodes=2, spare=1)
    assert layout == JobLayout(2, 1, ranks, 8 // ranks, ranks if resources else 0)


def test_a_shell_without_a_job_is_refused_with_what_to_do(cluster: Cluster, recipe: Path) -> None:
    done = run_program("submit.py", "--in-allocation", recipe, cluster=cluster)
    assert done.returncode == 2
    assert "salloc" in done.stderr


def test_more_nodes_than_the_allocation_has_are_refused(cluster: Cluster, recipe: Path) -> None:
    command = command_of("submit.py", "--in-allocation", "--nodes", 3, "--dry-run", recipe)
    done = subprocess.run(
        ["salloc", "--nodes=2", *command],
        env=environment_of(cluster),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "has 2 nodes; use at most that many" in done.stderr
