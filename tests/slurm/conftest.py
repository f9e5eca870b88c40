"""Clusters that tests share: every test starts with all nodes idle and no jobs.

If a cluster cannot run here, its tests are skipped, or fail with EXPECT_SLURM=1. A lab needs
namespaces, so its tests may be skipped even then.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, start_cluster
from tests.slurm.lab import Lab, start_lab
from tests.slurm.requirements import missing_for_cluster, missing_for_lab
from tests.slurm.settings import Hardware
from tests.slurm.trainings import digits_in, unbroken

HARDWARE = Hardware(nodes=4, cpus=4, gpus=4)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    require_cluster()
    with start_cluster(tmp_path_factory.mktemp("cluster"), HARDWARE) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    require_lab()
    with start_lab(tmp_path_factory.mktemp("lab"), HARDWARE) as lab:
        yield lab


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """Nodes n1 to n4 with 4 CPUs and 4 fake GPUs each, all on this host."""
    shared_cluster.restore()
    return shared_cluster


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """Nodes m1 to m4 with 4 CPUs and 4 fake GPUs each, which can be cut off and switched off."""
    shared_lab.restore()
    return shared_lab


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a training of a few seconds."""
    return digits_in(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def whole(recipe: Path) -> Path:
    """The folder of an unbroken run of two ranks."""
    return unbroken(recipe, ranks=2)


def require_cluster() -> None:
    if missing := missing_for_cluster():
        if os.environ.get("EXPECT_SLURM") == "1":
            pytest.fail(missing)
        pytest.skip(missing)


def require_lab() -> None:
    require_cluster()
    if missing := missing_for_lab():
        pytest.skip(missing)
