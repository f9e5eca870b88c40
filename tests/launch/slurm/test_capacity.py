"""A request is checked against the cluster before it queues, and laid out by its nodes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.slurm.api.nodes import Node, gpus_in
from launch.slurm.api.partitions import Partition
from launch.slurm.records.submission import JobLayout
from launch.slurm.submit.capacity import check_request, expect_shared, plan_layout
from pipeline.config.schema import Slurm
from tests.launch.slurm.recordings import recorded_partitions

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


def layout(slurm: Slurm, chosen: Partition, nodes: int = 2) -> JobLayout:
    return plan_layout(slurm, chosen, nodes=nodes)


# ------------------------------------------------------------------------------------- the layout


def test_by_default_each_gpu_has_a_rank_and_each_rank_its_share_of_cpus() -> None:
    assert layout(Slurm(), partition()) == JobLayout(2, 0, 8, 8, 8)


def test_without_gpus_a_node_has_one_rank_with_all_cpus() -> None:
    assert layout(Slurm(), partition(*machines(2, gpus=0))) == JobLayout(2, 0, 1, 64, 0)


def test_the_smallest_node_decides() -> None:
    mixed = partition(*machines(2), *machines(1, 3, gpus=4, cpus=30))
    assert layout(Slurm(), mixed) == JobLayout(2, 0, 4, 7, 4)


def test_nodes_without_gpus_or_with_too_few_do_not_decide() -> None:
    mixed = partition(*machines(2), *machines(1, 3, gpus=0, cpus=4))
    assert layout(Slurm(), mixed).gpus_per_node == 8
    assert layout(Slurm(gpus_per_node=8), mixed).cpus_per_rank == 8


def test_nodes_without_the_features_do_not_decide() -> None:
    mixed = partition(*machines(2), *machines(2, 3, gpus=4, features=frozenset({"v100"})))
    assert layout(Slurm(constraint="a100&ib"), mixed).gpus_per_node == 8
    assert layout(Slurm(constraint="a100|v100"), mixed).gpus_per_node == 4


def test_a_share_of_the_gpus_comes_with_the_same_share_of_cpus() -> None:
    assert layout(Slurm(gpus_per_node=2), partition()) == JobLayout(2, 0, 2, 8, 2)
    alone = Slurm(gpus_per_node=2, sbatch={"exclusive": True})
    assert layout(alone, partition()).cpus_per_rank == 32


def test_settings_override_the_defaults() -> None:
    slurm = Slurm(gpus_per_node=0, ranks_per_node=3, cpus_per_rank=5, spare_nodes=1)
    assert layout(slurm, partition()) == JobLayout(2, 1, 3, 5, 0)


def test_a_rank_has_at_least_one_cpu() -> None:
    small = partition(*machines(2, gpus=0, cpus=2))
    assert layout(Slurm(ranks_per_node=4), small).cpus_per_rank == 1


# ------------------------------------------------------------------------------------ the request


def test_a_fitting_request_uses_the_default_partition_without_a_warning() -> None:
    other = partition(name="other", is_default=False)
    assert check_request(Slurm(), offered(other, partition()), nodes=4) == (partition(), [])


def test_a_named_partition_is_used() -> None:
    other = partition(name="other", is_default=False)
    chosen, _ = check_request(Slurm(partition="other"), offered(other, partition()), nodes=4)
    assert chosen is other


def test_an_unknown_partition_is_refused_with_the_known_ones() -> None:
    assert refusal(Slurm(partition="mian")).endswith("did you mean main? known: main")
    assert "unknown partition other;" in refusal(Slurm(partition="main,other"))


def test_without_a_default_a_partition_must_be_named() -> None:
    assert refusal(Slurm(), partition(is_default=False)).endswith("set slurm.partition: main")


@pytest.mark.parametrize("state", ["DOWN", "DRAIN", "INACTIVE"])
def test_a_partition_that_is_not_up_is_refused(state: str) -> None:
    assert f"partition main is {state.lower()}" in refusal(Slurm(), partition(state=state))


def test_too_many_or_too_few_nodes_are_refused_and_spare_ones_count() -> None:
    assert "the job needs 5 nodes, but partition main has 4;" in refusal(Slurm(), nodes=5)
    assert refusal(Slurm(spare_nodes=1), nodes=4).startswith("--nodes 4 and slurm.spare_nodes=1:")
    assert "allows at most 2 for a job;" in refusal(Slurm(), partition(max_nodes=2), nodes=3)
    assert "needs at least 2 for a job;" in refusal(Slurm(), partition(min_nodes=2), nodes=1)


def test_a_time_limit_beyond_the_partitions_is_refused() -> None:
    bounded = partition(max_minutes=2 * 24 * 60)
    assert "more than the 2-00:00:00" in refusal(Slurm(time_limit="48:00:01"), bounded)
    check_request(Slurm(time_limit="2-00"), offered(bounded), nodes=1)


@pytest.mark.parametrize(
    ("slurm", "says"),
    [
        (Slurm(gpus_per_node=9), "slurm.gpus_per_node=9 needs 9 GPUs per node"),
        (Slurm(cpus_per_rank=9), "slurm.cpus_per_rank=9 for 8 ranks needs 72 CPUs per node"),
        (Slurm(memory="501G"), "slurm.memory=501G needs 513,024 MB per node"),
        (Slurm(memory="512001"), "slurm.memory=512001 needs 512,001 MB per node"),
        (Slurm(memory="524288001K"), "needs 512,001 MB per node"),
    ],
)
def test_more_than_a_node_has_is_refused(slurm: Slurm, says: str) -> None:
    assert says in refusal(slurm)


def test_as_much_as_a_node_has_is_accepted() -> None:
    for slurm in (Slurm(gpus_per_node=8), Slurm(cpus_per_rank=8), Slurm(memory="500G")):
        check_request(slurm, offered(partition()), nodes=4)
    check_request(Slurm(memory="0"), offered(partition()), nodes=4)


def test_enough_nodes_must_have_the_hardware() -> None:
    mixed = partition(*machines(2), *machines(2, 3, gpus=4))
    check_request(Slurm(gpus_per_node=8), offered(mixed), nodes=2)
    assert "has at most 4 on 3 nodes" in refusal(Slurm(gpus_per_node=8), mixed, nodes=3)


def test_more_ranks_than_gpus_are_refused() -> None:
    assert "each rank needs its own" in refusal(Slurm(gpus_per_node=2, ranks_per_node=3))


def test_an_unknown_feature_is_refused_with_the_known_ones() -> None:
    assert refusal(Slurm(constraint="a10o&ib")).endswith("did you mean a100? known: a100, ib")
    assert "the feature h100" in refusal(Slurm(constraint="[a100*2&h100*1]"))


def test_features_of_too_few_nodes_are_refused() -> None:
    mixed = partition(*machines(2), *machines(2, 3, features=frozenset({"ib"})))
    check_request(Slurm(constraint="a100&ib"), offered(mixed), nodes=2)
    said = refusal(Slurm(constraint="a100&ib"), mixed, nodes=3)
    assert "slurm.constraint=a100&ib leaves 2 of the 4 nodes" in said


def test_too_few_nodes_in_service_give_a_warning() -> None:
    away = partition(*machines(3), *machines(1, 4, is_usable=False))
    assert check_request(Slurm(), offered(away), nodes=3)[1] == []
    (warning,) = check_request(Slurm(), offered(away), nodes=4)[1]
    assert warning.startswith("partition main has only 3 suitable nodes in service")


def test_no_time_limit_at_all_gives_a_warning() -> None:
    endless = offered(partition(default_minutes=None))
    assert "slurm.time_limit is not set" in check_request(Slurm(), endless, nodes=1)[1][0]
    assert check_request(Slurm(time_limit="90"), endless, nodes=1)[1] == []


# ------------------------------------------------------------------------------------- shared runs


def test_all_nodes_must_see_the_runs() -> None:
    memory = Path("/dev/shm/runs")
    with pytest.raises(ValueError, match="tmpfs, mounted at /dev/shm, which the nodes of") as error:
        expect_shared(memory, Slurm(), partition())
    assert "runs_dir=" in str(error.value)
    expect_shared(memory, Slurm(run_dir_is_shared=True), partition())


def test_any_folder_will_do_if_all_nodes_are_this_host() -> None:
    here = partition(*machines(2, address="127.0.0.1"))
    expect_shared(Path("/dev/shm/runs"), Slurm(), here)
    beside = partition(*machines(2, address="127.0.0.1"), *machines(1, 3))
    with pytest.raises(ValueError, match="cannot see"):
        expect_shared(Path("/dev/shm/runs"), Slurm(), beside)


def test_an_unknown_file_system_is_accepted_unless_the_user_says_otherwise() -> None:
    processes = Path("/proc")
    expect_shared(processes, Slurm(), partition())
    with pytest.raises(ValueError, match="run_dir_is_shared=false"):
        expect_shared(processes, Slurm(run_dir_is_shared=False), partition())


# ------------------------------------------------------------------------------------- the records


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
def test_gpus_are_counted_in_the_resources_of_a_node(resources: str, count: int) -> None:
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


# -------------------------------------------------------- several partitions, and types of GPUs


def test_of_several_partitions_each_must_serve_the_job_and_the_strictest_limits_hold() -> None:
    small = partition(*machines(2, 3, gpus=4, cpus=30), name="small", max_minutes=60)
    both = offered(partition(), small)
    asked = Slurm(partition="main,small")
    chosen, warnings = check_request(asked, both, nodes=2)
    assert (chosen.name, chosen.max_minutes, warnings) == ("main,small", 60, [])
    assert layout(asked, chosen) == JobLayout(2, 0, 4, 7, 4)
    said = refusal(asked, partition(), small, nodes=3)
    assert "partition small has 2;" in said
    said = refusal(Slurm(partition="main,small", time_limit="2:00:00"), partition(), small)
    assert "that partition small allows" in said


def test_nodes_out_of_service_count_only_if_no_partition_has_enough() -> None:
    away = partition(*machines(4, is_usable=False), name="away")
    _, warnings = check_request(Slurm(partition="main,away"), offered(partition(), away), nodes=2)
    assert warnings == []
    _, (warning,) = check_request(Slurm(partition="away"), offered(away), nodes=2)
    assert "partition away has only 0 suitable nodes" in warning


def test_gpus_may_be_of_a_type() -> None:
    mixed = partition(
        *machines(2, resources="gpu:a100:8"), *machines(2, 3, resources="gpu:v100:8(S:0-1)")
    )
    chosen, _ = check_request(Slurm(gpus_per_node="a100:4"), offered(mixed), nodes=2)
    assert layout(Slurm(gpus_per_node="a100:4"), chosen) == JobLayout(2, 0, 4, 8, 4)
    assert "has at most 0 on 3 nodes" in refusal(Slurm(gpus_per_node="a100:4"), mixed, nodes=3)
    assert refusal(Slurm(gpus_per_node="a10o:4"), mixed).endswith(
        "has no GPUs of type a10o; did you mean a100? known: a100, v100"
    )


def test_a_limit_that_is_shorter_than_the_notice_is_refused() -> None:
    assert "must be shorter than the 00:02:00 that" in refusal(
        Slurm(), partition(max_minutes=2, default_minutes=None)
    )
    check_request(Slurm(stop_notice_seconds=30), offered(partition(max_minutes=2)), nodes=1)
