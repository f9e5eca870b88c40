"""Only ranks, nodes and links much slower than the others are reported."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributed.health import Link, RankHealth, describe_health, slow_ranks
from pipeline.distributed.health.links import (
    MESSAGE_BYTES,
    MOST_MESSAGES,
    TRIAL_BYTES,
    links_of,
    plan_messages,
    strides,
)


def cluster(nodes: int, gpus: int) -> list[RankHealth]:
    """Nodes of equal GPUs; links within a node are ten times as fast as links between nodes."""
    size = nodes * gpus
    hosts = [f"node{rank // gpus:02d}" for rank in range(size)]
    healths: list[RankHealth] = []
    for rank, host in enumerate(hosts):
        before = (rank - 1) % size
        within = hosts[before] == host
        links = (
            Link("within a node", before, rank, 400.0)
            if within
            else Link("between nodes", before, rank, 40.0),
            Link("between nodes, all ranks at once", (rank - gpus) % size, rank, 35.0),
        )
        healths.append(RankHealth(rank, host, rank % gpus, "GPU", 660.0, 50.0, 300.0, links))
    return healths


def test_equal_ranks_are_not_reported() -> None:
    assert slow_ranks(cluster(nodes=3, gpus=8)) == []


def test_a_slow_gpu_is_reported_with_its_node_and_speed() -> None:
    healths = cluster(nodes=2, gpus=8)
    healths[13] = replace(healths[13], matmul_teraflops=402.0)
    assert slow_ranks(healths) == [
        "rank 13 (GPU 5 of node01) multiplies at 61 % of the median (402 of 660 TFLOP/s)"
    ]


def test_normal_variation_between_gpus_is_not_reported() -> None:
    healths = cluster(nodes=2, gpus=8)
    healths[13] = replace(healths[13], matmul_teraflops=0.81 * 660)
    assert slow_ranks(healths) == []


def test_a_gpu_with_slow_copies_is_reported() -> None:
    healths = cluster(nodes=2, gpus=8)
    healths[2] = replace(healths[2], host_to_device_gigabytes_per_second=12.5)
    assert slow_ranks(healths) == [
        "rank 2 (GPU 2 of node00) copies from host to GPU at 25 % of the median (12.5 of 50 GB/s)"
    ]


def test_a_node_with_only_slow_ranks_is_reported_once() -> None:
    slow = [
        replace(health, matmul_teraflops=330.0) if health.host == "node01" else health
        for health in cluster(nodes=3, gpus=8)
    ]
    assert slow_ranks(slow) == [
        "all 8 ranks of node01: each multiplies at 50 % of the median (330 of 660 TFLOP/s)"
    ]


def test_a_slow_link_is_reported_with_both_ends_and_compared_with_its_route() -> None:
    healths = cluster(nodes=3, gpus=8)
    weak, other = healths[8].links
    assert weak.source == 7
    healths[8] = replace(healths[8], links=(replace(weak, gigabytes_per_second=1.2), other))
    assert slow_ranks(healths) == [
        "the link from rank 7 (GPU 7 of node00) to rank 8 (GPU 0 of node01) carries 3 % of the"
        " median (1.2 of 40 GB/s) of links between nodes"
    ]


def test_cpus_may_vary_more_than_gpus() -> None:
    cpus = [
        replace(health, device="CPU", matmul_teraflops=teraflops)
        for health, teraflops in zip(cluster(1, 3), (0.1, 0.1, 0.06), strict=True)
    ]
    assert slow_ranks(cpus) == []
    cpus[2] = replace(cpus[2], matmul_teraflops=0.02)
    assert slow_ranks(cpus) == [
        "rank 2 (on node00) multiplies at 20 % of the median (0.02 of 0.1 TFLOP/s)"
    ]


def test_one_line_has_the_median_and_minimum_of_every_figure() -> None:
    healths = cluster(nodes=2, gpus=2)
    healths[3] = replace(healths[3], matmul_teraflops=402.0)
    assert describe_health(healths) == (
        "matmul 660 TFLOP/s (min 402); host to GPU 50 GB/s (min 50);"
        " all-reduce 300 GB/s (min 300);"
        " links within a node 400 GB/s (min 400);"
        " links between nodes, all ranks at once 35 GB/s (min 35);"
        " links between nodes 40 GB/s (min 40)"
    )


@given(nodes=st.integers(1, 20), local_size=st.integers(1, 9))
def test_links_form_a_ring_and_share_no_rank_within_a_phase(nodes: int, local_size: int) -> None:
    hosts = [f"node{rank // local_size}" for rank in range(nodes * local_size)]
    if len(hosts) == 1:
        return
    for stride in strides(hosts):
        links = list(links_of(len(hosts), stride))
        assert sorted(source for _, source, _ in links) == list(range(len(hosts)))
        assert sorted(target for _, _, target in links) == list(range(len(hosts)))
        ends = Counter((phase, rank) for phase, *pair in links for rank in pair)
        assert set(ends.values()) == {1}


def test_equal_gpus_of_nodes_are_linked_only_if_nodes_have_equally_many_ranks() -> None:
    assert strides(["a", "a", "b", "b"]) == [1, 2]
    assert strides(["a", "b", "c"]) == [1]
    assert strides(["a", "a"]) == [1]
    assert strides(["a", "a", "b"]) == [1]
    assert strides(["a", "a", "b", "b", "b", "c"]) == [1]
    assert strides(["a", "b", "a", "b"]) == [1]


@given(bandwidth=st.floats(1e3, 1e13), seconds=st.floats(0.01, 10))
def test_messages_keep_to_their_time_above_a_minimum_size(bandwidth: float, seconds: float) -> None:
    size, messages = plan_messages(bandwidth, seconds)
    assert TRIAL_BYTES <= size <= MESSAGE_BYTES
    assert 1 <= messages <= MOST_MESSAGES
    assert size * messages <= max(TRIAL_BYTES, bandwidth * seconds)
