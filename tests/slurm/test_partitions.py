"""Real partitions are read correctly, and a refused request could never start."""

from collections.abc import Generator

import pytest

from launch.slurm.api.partitions import read_partitions
from launch.slurm.records.submission import JobLayout
from launch.slurm.submit.capacity import check_request, plan_layout
from pipeline.config.schema import Slurm
from tests.slurm.cluster import Cluster, start_cluster
from tests.slurm.conftest import require_cluster
from tests.slurm.settings import Hardware


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """Nodes n1 to n3, and a partition `short` of the first two."""
    require_cluster()
    short = "short Nodes=n[1-2] MaxTime=30 MaxNodes=1 DefaultTime=10"
    settings = {"PartitionName": short, "NodeName": "DEFAULT Feature=a100,ib"}
    folder = tmp_path_factory.mktemp("limited")
    with start_cluster(folder, Hardware(3, cpus=4, gpus=2), **settings) as cluster:
        yield cluster


@pytest.fixture
def at_limited(limited: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, limited.environment[name])
    return limited


def test_a_clusters_partitions_are_read(at_limited: Cluster) -> None:
    partitions = read_partitions()
    assert set(partitions) == {"main", "urgent", "short"}
    assert [name for name, each in partitions.items() if each.is_default] == ["main"]
    assert all(each.is_up and each.is_this_host for each in partitions.values())
    assert partitions["main"].node_names == ["n1", "n2", "n3"]
    assert partitions["main"].nodes[2].features == {"a100", "ib"}
    assert partitions["short"].max_minutes == 30
    assert plan_layout(Slurm(), partitions["main"], nodes=2) == JobLayout(2, 0, 2, 2, 2)


def test_excluding_too_many_nodes_is_refused(at_limited: Cluster) -> None:
    partitions = read_partitions()
    check_request(Slurm(exclude="n[2-3]"), partitions, nodes=1)
    with pytest.raises(ValueError, match=r"slurm.exclude=n\[2-3\] leaves 1 of the 3 nodes"):
        check_request(Slurm(exclude="n[2-3]"), partitions, nodes=2)


@pytest.mark.parametrize("name", ["main", "short"])
def test_a_partition_that_is_down_is_refused_and_a_drained_node_is_not_usable(
    name: str, at_limited: Cluster
) -> None:
    at_limited.run("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    at_limited.run("scontrol", "update", f"partitionname={name}", "state=down")
    try:
        partitions = read_partitions()
        assert partitions["urgent"].usable_nodes == 2
        with pytest.raises(ValueError, match=f"partition {name} is down"):
            check_request(Slurm(partition=name), partitions, nodes=1)
    finally:
        at_limited.run("scontrol", "update", f"partitionname={name}", "state=up")
        at_limited.resume("n1")


def test_slurm_would_let_a_refused_job_wait_forever(at_limited: Cluster) -> None:
    for slurm, options in (
        (Slurm(partition="short", time_limit="31"), ["--partition=short", "--time=31"]),
        (Slurm(partition="short", spare_nodes=1), ["--partition=short", "--nodes=2"]),
    ):
        with pytest.raises(ValueError, match="partition short"):
            check_request(slurm, read_partitions(), nodes=1)
        job = at_limited.submit("true", *options)
        state = at_limited.job(job)
        assert state["JobState"] == "PENDING"
        assert state["Reason"].startswith("Partition")
        at_limited.run("scancel", job)
