"""One bad node neither ends nor blocks a run: it is reported and avoided, and no bit changes."""

import sys
from pathlib import Path

import pytest

from launch.slurm.records.history import HISTORY
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.lab import Lab
from tests.slurm.trainings import LAUNCH_SECONDS, Training, expect_like, submit

PYTHON = Path(sys.executable)
SHORT = ("train.steps=20", "evaluate.every_steps=20")


def expect_without(training: Training, node: str, *, restarts: int) -> None:
    """The run is done, after a single start that failed because of `node`."""
    training.wait_for_end()
    assert training.outcomes == ["bad node", "done"], training.log()
    assert training.history[0].node == node
    assert training.history[0].error.startswith(f"{node}: ")
    assert node not in training.nodes()
    assert training.cluster.job(training.job_id)["Restarts"] == str(restarts)


def test_a_spare_replaces_a_node_without_python(lab: Lab, recipe: Path, whole: Path) -> None:
    lab.cover("m2", PYTHON.parent)
    training = submit(lab, recipe, "slurm.spare_nodes=1", "slurm.exclude=m4")
    expect_without(training, "m2", restarts=0)
    assert "Python does not start there: execve()" in training.history[0].error
    expect_like(training, whole)


@pytest.mark.exhaustive
def test_a_spare_replaces_a_node_where_python_hangs(lab: Lab, recipe: Path) -> None:
    hangs = lab.folder / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    lab.cover("m2", PYTHON, by=hangs)
    training = submit(lab, recipe, "slurm.spare_nodes=1", "slurm.exclude=m4", *SHORT)
    expect_without(training, "m2", restarts=0)
    assert "Python did not start there within 30 s" in training.history[0].error


def test_a_job_without_spares_leaves_a_node_without_the_run_folder(lab: Lab, recipe: Path) -> None:
    lab.cover("m2", recipe.parent)
    training = submit(lab, recipe, *SHORT)
    expect_without(training, "m2", restarts=1)
    assert lab.job(training.job_id)["ExcNodeList"] == "m2"
    assert f"the run folder {training.run_dir} is missing" in training.history[0].error


@pytest.mark.exhaustive
def test_a_job_leaves_a_first_node_without_python(lab: Lab, recipe: Path) -> None:
    lab.cover("m1", PYTHON.parent)
    training = submit(lab, recipe, *SHORT)
    training.wait_for_end()
    assert training.outcomes == ["done"]
    assert lab.job(training.job_id)["ExcNodeList"] == "m1"
    assert f"the job is requeued: {PYTHON} does not start on m1" in training.log()


def test_a_half_trained_run_leaves_a_node_that_lost_the_dataset(
    lab: Lab, recipe: Path, whole: Path
) -> None:
    training = submit(lab, recipe)
    training.wait_for_step(20)
    lab.cover("m2", recipe.parent / "digits")
    lab.rank_process(training.job_id, 0).kill()
    training.wait_for_end()
    assert training.outcomes == ["crashed", "bad node", "done"]
    assert training.history[0].node == "m1"
    assert "m2: the dataset" in training.history[1].error
    expect_like(training, whole)


@pytest.mark.exhaustive
def test_a_job_leaves_a_first_node_where_files_fail(cluster: Cluster, recipe: Path) -> None:
    training = submit(cluster, recipe, "slurm.sbatch={hold: true}", *SHORT)
    obstacle = training.submission.folder / HISTORY
    obstacle.mkdir()
    cluster.run("scontrol", "release", training.job_id)
    wait_until(
        lambda: cluster.job(training.job_id)["ExcNodeList"] == "n1", training.log, LAUNCH_SECONDS
    )
    obstacle.rmdir()
    training.wait_for_end()
    assert training.outcomes == ["done"]
    assert "n1" not in training.nodes()


@pytest.mark.exhaustive
def test_a_job_whose_supervisor_is_killed_is_requeued(lab: Lab, recipe: Path, whole: Path) -> None:
    training = submit(lab, recipe)
    training.wait_for_step(20)
    lab.supervisor_process(training.job_id).kill()
    training.wait_for_end()
    assert "the job is requeued: signal 9 ended the supervisor" in training.log()
    assert training.outcomes == ["done"]
    expect_like(training, whole)
