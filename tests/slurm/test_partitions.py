"""Whether a request fits is known before it queues, and what is left open follows the nodes."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.slurm.api.partition import Node, Partition, gpus_in
from launch.slurm.records.submission import Layout
from launch.slurm.submit.capacity import check_request, expect_shared, plan_layout, read_partitions
from pipeline.config.schema import Slurm
from tests.slurm.cluster import Cluster, start_cluster
from tests.slurm.conftest import require_cluster
from tests.slurm.recordings import recorded_partitions
from tests.slurm.settings import Hardware

MACHINE = Node("n1", "n1", "10.0.0.1", 64, 512_000, 8, frozenset({"a100", "ib"}), True)


def machines(count: int, start: int = 1, **changes: Any) -> tuple[Node, ...]:
    numbers = range(start, start + count)
    return tuple(replace(MACHINE, name=f"n{number}", **changes) for number in numbers)


def partition(*nodes: Node, **changes: Any) -> Partition:
    whole = Partition("main", True, "UP", None, 60, 0, None, 1, "OFF", 0, nodes or machines(4))
    return replace(whole, **changes)


def offered(*partitions: Partition) -> dict[str, Partition]:
    return {each.name: each for each in partitions}


def refusal(slurm: Slurm, *partitions: Partition, nodes: int = 1) -> str:
    with pytest.raises(ValueError) as error:
        check_request(slurm, offered(*partitions or (partition(),)), nodes=nodes)
    return str(error.value)


def layout(slurm: Slurm, chosen: Partition, nodes: int = 2) -> Layout:
    return plan_layout(slurm, chosen, nodes=nodes)


# ------------------------------------------------------------------------------------- the layout


def test_by_default_each_gpu_has_a_rank_and_each_rank_its_share_of_the_cpus() -> None:
    assert layout(Slurm(), partition()) == Layout(2, 0, 8, 8, 8)


def test_without_gpus_a_node_has_one_rank_with_all_cpus() -> None:
    assert layout(Slurm(), partition(*machines(2, gpus=0))) == Layout(2, 0, 1, 64, 0)


def test_the_least_node_decides() -> None:
    mixed = partition(*machines(2), *machines(1, 3, gpus=4, cpus=30))
    assert layout(Slurm(), mixed) == Layout(2, 0, 4, 7, 4)


def test_nodes_without_gpus_or_that_are_too_small_do_not_decide_for_the_others() -> None:
    mixed = partition(*machines(2), *machines(1, 3, gpus=0, cpus=4))
    assert layout(Slurm(), mixed).gpus_per_node == 8
    assert layout(Slurm(gpus_per_node=8), mixed).cpus_per_rank == 8


def test_nodes_that_are_ruled_out_do_not_decide() -> None:
    mixed = partition(*machines(2), *machines(2, 3, gpus=4, features=frozenset({"v100"})))
    assert layout(Slurm(constraint="a100&ib"), mixed).gpus_per_node == 8
    assert layout(Slurm(constraint="a100|v100"), mixed).gpus_per_node == 4


def test_some_of_the_gpus_come_with_as_large_a_share_of_the_cpus() -> None:
    assert layout(Slurm(gpus_per_node=2), partition()) == Layout(2, 0, 2, 8, 2)
    alone = Slurm(gpus_per_node=2, sbatch={"exclusive": True})
    assert layout(alone, partition()).cpus_per_rank == 32


def test_what_is_set_is_taken() -> None:
    slurm = Slurm(gpus_per_node=0, ranks_per_node=3, cpus_per_rank=5, spare_nodes=1)
    assert layout(slurm, partition()) == Layout(2, 1, 3, 5, 0)


def test_a_rank_has_a_cpu_even_where_there_are_more_ranks() -> None:
    small = partition(*machines(2, gpus=0, cpus=2))
    assert layout(Slurm(ranks_per_node=4), small).cpus_per_rank == 1


# ------------------------------------------------------------------------------------ the request


def test_a_request_that_fits_waits_in_the_default_partition_without_a_warning() -> None:
    other = partition(name="other", is_default=False)
    assert check_request(Slurm(), offered(other, partition()), nodes=4) == (partition(), [])


def test_a_named_partition_is_taken() -> None:
    other = partition(name="other", is_default=False)
    chosen, _ = check_request(Slurm(partition="other"), offered(other, partition()), nodes=4)
    assert chosen is other


def test_an_unknown_partition_is_refused_with_those_there_are() -> None:
    assert refusal(Slurm(partition="mian")).endswith("did you mean main? known: main")
    assert "is more than one" in refusal(Slurm(partition="main,other"))


def test_without_a_default_partition_one_must_be_named() -> None:
    assert refusal(Slurm(), partition(is_default=False)).endswith("set slurm.partition: main")


@pytest.mark.parametrize("state", ["DOWN", "DRAIN", "INACTIVE"])
def test_a_partition_that_starts_no_jobs_is_refused(state: str) -> None:
    assert f"partition main is {state.lower()}" in refusal(Slurm(), partition(state=state))


def test_more_nodes_than_there_are_or_may_be_are_refused_spare_ones_included() -> None:
    assert "a job of 5 nodes, but partition main has 4;" in refusal(Slurm(), nodes=5)
    assert refusal(Slurm(spare_nodes=1), nodes=4).startswith("--nodes 4 and slurm.spare_nodes=1:")
    assert "allows a job 2;" in refusal(Slurm(), partition(max_nodes=2), nodes=3)
    assert "with less than 2;" in refusal(Slurm(), partition(min_nodes=2), nodes=1)


def test_a_time_limit_beyond_the_partitions_is_refused_and_the_same_one_is_not() -> None:
    bounded = partition(max_minutes=2 * 24 * 60)
    assert "more than the 2-00:00:00" in refusal(Slurm(time_limit="48:00:01"), bounded)
    check_request(Slurm(time_limit="2-00"), offered(bounded), nodes=1)


@pytest.mark.parametrize(
    ("slurm", "says"),
    [
        (Slurm(gpus_per_node=9), "slurm.gpus_per_node=9 is 9 GPUs a node"),
        (Slurm(cpus_per_rank=9), "slurm.cpus_per_rank=9 for 8 ranks is 72 CPUs a node"),
        (Slurm(memory="501G"), "slurm.memory=501G is 513,024 MB a node"),
        (Slurm(memory="512001"), "slurm.memory=512001 is 512,001 MB a node"),
        (Slurm(memory="524288001K"), "is 512,001 MB a node"),
    ],
)
def test_more_than_a_node_has_is_refused(slurm: Slurm, says: str) -> None:
    assert says in refusal(slurm)


def test_as_much_as_a_node_has_is_accepted() -> None:
    for slurm in (Slurm(gpus_per_node=8), Slurm(cpus_per_rank=8), Slurm(memory="500G")):
        check_request(slurm, offered(partition()), nodes=4)
    check_request(Slurm(memory="0"), offered(partition()), nodes=4)


def test_as_many_nodes_must_have_it_as_are_asked_for() -> None:
    mixed = partition(*machines(2), *machines(2, 3, gpus=4))
    check_request(Slurm(gpus_per_node=8), offered(mixed), nodes=2)
    assert "cannot give 3 nodes with more than 4" in refusal(Slurm(gpus_per_node=8), mixed, nodes=3)


def test_more_ranks_than_gpus_are_refused() -> None:
    assert "each rank needs its own" in refusal(Slurm(gpus_per_node=2, ranks_per_node=3))


def test_a_feature_that_no_node_has_is_refused_with_those_there_are() -> None:
    assert refusal(Slurm(constraint="a10o&ib")).endswith("did you mean a100? known: a100, ib")
    assert "the feature h100" in refusal(Slurm(constraint="[a100*2&h100*1]"))


def test_features_that_too_few_nodes_have_are_refused() -> None:
    mixed = partition(*machines(2), *machines(2, 3, features=frozenset({"ib"})))
    check_request(Slurm(constraint="a100&ib"), offered(mixed), nodes=2)
    said = refusal(Slurm(constraint="a100&ib"), mixed, nodes=3)
    assert "slurm.constraint=a100&ib leaves 2 of the 4 nodes" in said


def test_a_request_that_must_wait_for_nodes_is_warned_of() -> None:
    away = partition(*machines(3), *machines(1, 4, is_usable=False))
    assert check_request(Slurm(), offered(away), nodes=3)[1] == []
    (warning,) = check_request(Slurm(), offered(away), nodes=4)[1]
    assert warning.startswith("3 of the nodes that fit are in service")


def test_no_time_limit_and_none_by_default_is_warned_of() -> None:
    endless = offered(partition(default_minutes=None))
    assert "no slurm.time_limit" in check_request(Slurm(), endless, nodes=1)[1][0]
    assert check_request(Slurm(time_limit="90"), endless, nodes=1)[1] == []


# ------------------------------------------------------------------------------------- shared runs


def test_runs_must_lie_where_all_nodes_see_them() -> None:
    memory = Path("/dev/shm/runs")
    with pytest.raises(ValueError, match="tmpfs, mounted at /dev/shm, which the nodes of") as error:
        expect_shared(memory, Slurm(), partition())
    assert "runs_dir=" in str(error.value)
    expect_shared(memory, Slurm(run_dir_is_shared=True), partition())


def test_runs_may_lie_anywhere_if_all_nodes_are_this_host() -> None:
    here = partition(*machines(2, address="127.0.0.1"))
    expect_shared(Path("/dev/shm/runs"), Slurm(), here)
    beside = partition(*machines(2, address="127.0.0.1"), *machines(1, 3))
    with pytest.raises(ValueError, match="do not see"):
        expect_shared(Path("/dev/shm/runs"), Slurm(), beside)


def test_a_file_system_that_does_not_tell_is_believed_unless_the_user_knows_better() -> None:
    processes = Path("/proc")
    expect_shared(processes, Slurm(), partition())
    with pytest.raises(ValueError, match="run_dir_is_shared=false"):
        expect_shared(processes, Slurm(run_dir_is_shared=False), partition())


# ------------------------------------------------------------------------------------ real clusters


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ("gpu:4", 4),
        ("gpu:a100:8(S:0-1)", 8),
        ("gpu:a100:4(S:0,2),gpu:v100:2,nvme:1", 6),
        ("nvme:3,gpu:2", 2),
        ("shard:gpu:8", 0),
        ("(null)", 0),
    ],
)
def test_gpus_are_counted_in_what_a_node_offers(resources: str, count: int) -> None:
    assert gpus_in(resources) == count


def test_limits_features_and_nodes_out_of_service_are_read() -> None:
    gpu = recorded_partitions("preempting")["gpu"]
    assert (gpu.max_minutes, gpu.default_minutes, gpu.max_nodes) == (30, 10, 1)
    assert gpu.node_names == ["n1", "n2"]
    assert gpu.nodes[0].features == {"a100", "ib"}
    main = recorded_partitions("defaults")["main"]
    assert (main.max_minutes, main.default_minutes, main.max_nodes) == (None, None, None)
    assert (len(main.nodes), main.usable_nodes) == (4, 3)
    assert (main.cpus_per_node, main.memory_megabytes, main.gpus_per_node) == (4, 6000, 4)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """n1 to n3, and a partition `short` of the first two."""
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
    assert layout(Slurm(), partitions["main"]) == Layout(2, 0, 2, 2, 2)


def test_excluded_nodes_that_leave_too_few_are_refused(at_limited: Cluster) -> None:
    partitions = read_partitions()
    check_request(Slurm(exclude="n[2-3]"), partitions, nodes=1)
    with pytest.raises(ValueError, match=r"slurm.exclude=n\[2-3\] leaves 1 of the 3 nodes"):
        check_request(Slurm(exclude="n[2-3]"), partitions, nodes=2)


@pytest.mark.parametrize("name", ["main", "short"])
def test_a_partition_set_down_is_refused_and_a_drained_node_warned_of(
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


def test_what_is_refused_is_what_slurm_would_let_wait_for_ever(at_limited: Cluster) -> None:
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
