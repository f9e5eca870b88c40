"""A run folder whose disk is full for seconds costs a job at most a restart."""

from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from tests.multiprocess.runs import newest, state
from tests.slurm.cluster import Cluster
from tests.slurm.trainings import STEPS, Training, digits_in, submit, unbroken
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_in(tmp_path_factory.mktemp("full_disk"))


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    """An unbroken run of two ranks."""
    return unbroken(recipe, ranks=2)


@pytest.fixture
def disk(tmp_path: Path) -> Generator[SmallDisk]:
    with small_disk(tmp_path / "disk", "50m") as disk:
        yield disk


def submit_on(disk: SmallDisk, cluster: Cluster, recipe: Path) -> Training:
    """Submit a training whose folder, with code and logs, is on the small disk."""
    copy = disk.folder / recipe.name
    copy.write_bytes(recipe.read_bytes())
    return submit(cluster, copy)


def expect_like(training: Training, whole: Path) -> None:
    assert newest(training.run_dir) == STEPS, training.log()
    expected, found = state(whole), state(training.run_dir)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), f"{name} differs"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_may_die_while_the_disk_is_full(
    cluster: Cluster, recipe: Path, whole: Path, disk: SmallDisk, rank: int
) -> None:
    """Neither the outcome nor the files of the next attempt can be written for a while."""
    training = submit_on(disk, cluster, recipe)
    training.wait_for_step(20)
    with disk.full_for(8):
        cluster.rank_process(training.job_id, rank).kill()
    training.wait_for_end()
    assert training.outcomes == ["crashed", "done"]
    assert cluster.job(training.job_id)["Restarts"] == "0"
    expect_like(training, whole)


def test_the_disk_may_be_full_while_a_job_starts(
    cluster: Cluster, recipe: Path, whole: Path, disk: SmallDisk
) -> None:
    training = submit_on(disk, cluster, recipe)
    with disk.full_for(25):  # attempt, rendezvous, configuration, first checkpoint
        pass
    training.wait_for_end()
    assert training.outcomes == ["done"]
    expect_like(training, whole)
