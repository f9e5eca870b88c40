"""What Linux reports about a machine is parsed, and printed in two lines per node."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributed.health import NodeReport, describe_nodes, machine, node_lines
from pipeline.distributed.health.clocks import ClockOffset
from pipeline.distributed.health.nodes import NodeFacts, RankPlace
from pipeline.distributed.world import World


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@given(st.sets(st.integers(0, 300)))
def test_parsing_inverts_formatting(numbers: set[int]) -> None:
    assert machine.parse_ranges(machine.format_ranges(numbers)) == numbers


def test_consecutive_numbers_are_written_as_ranges() -> None:
    assert machine.format_ranges({0, 1, 2, 3, 8, 10, 11}) == "0-3,8,10-11"


def test_cores_are_found_in_their_numa_nodes(tmp_path: Path) -> None:
    nodes = "sys/devices/system/node"
    files = {f"{nodes}/node0/cpulist": "0-3,8-11\n", f"{nodes}/node1/cpulist": "4-7,12-15\n"}
    root = write(tmp_path, files)
    assert machine.numa_nodes({1, 9}, root) == {0}
    assert machine.numa_nodes({3, 4}, root) == {0, 1}
    assert machine.numa_nodes({3, 4}, tmp_path / "elsewhere") == set()


def test_control_groups_limit_the_memory(tmp_path: Path) -> None:
    meminfo = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    800 kB\n"
    root = write(tmp_path, {"proc/meminfo": meminfo, "proc/self/cgroup": "0::/job/step\n"})
    assert machine.memory(root) == (800 * 1024, 1000 * 1024)
    groups = "sys/fs/cgroup"
    limits = {
        f"{groups}/job/memory.max": "500000\n",
        f"{groups}/job/memory.current": "200000\n",
        f"{groups}/job/step/memory.max": "max\n",
        f"{groups}/job/step/memory.current": "100000\n",
    }
    assert machine.memory(write(tmp_path, limits)) == (300000, 500000)


def test_network_cards_report_their_speed_if_known(tmp_path: Path) -> None:
    ports = "sys/class/infiniband"
    files = {
        "sys/class/net/eth0/speed": "25000\n",
        "sys/class/net/veth/speed": "-1\n",
        f"{ports}/mlx5_0/ports/1/state": "4: ACTIVE\n",
        f"{ports}/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
        f"{ports}/mlx5_1/ports/1/state": "1: DOWN\n",
        f"{ports}/mlx5_1/ports/1/rate": "2.5 Gb/sec (1X SDR)\n",
    }
    root = write(tmp_path, files)
    speeds = [machine.interface_speed(name, root) for name in ("eth0", "veth", "lo")]
    assert speeds == ["25 Gbit/s", "", ""]
    assert machine.rdma_ports(root) == ["mlx5_0 400 Gb/sec (4X NDR)"]


def test_a_folder_that_does_not_exist_yet_has_the_space_of_its_parent(tmp_path: Path) -> None:
    assert (machine.free_bytes(tmp_path / "a" / "b") or 0) > 0


def test_a_node_is_described_in_two_lines() -> None:
    gib = 2**30
    facts = NodeFacts(
        versions="torch 2.12, driver 570.86, CUDA 13.0, NCCL 2.28.3",
        network="gloo over eth0 (25 Gbit/s), NCCL chooses",
        memory_available_bytes=100 * gib,
        memory_bytes=128 * gib,
        free_bytes={"run_dir": 4000 * gib, "/dev/shm": None},
    )
    places = (RankPlace(8, "0-7", "0", "NVIDIA H200"), RankPlace(9, "8-15", "1", "NVIDIA H200"))
    report = NodeReport("node07", places, facts, ClockOffset(-1.234, 0.05))
    assert node_lines([report]) == [
        "node07 (ranks 8-9): 2 x NVIDIA H200, torch 2.12, driver 570.86, CUDA 13.0, NCCL 2.28.3,"
        " gloo over eth0 (25 Gbit/s), NCCL chooses, clock -1.23 ms (within 0.05)",
        "  rank 8: cores 0-7 (NUMA 0), rank 9: cores 8-15 (NUMA 1); free: memory 100 GiB of"
        " 128 GiB, run_dir 4,000 GiB, /dev/shm unknown",
    ]


def test_a_single_rank_describes_its_own_machine(tmp_path: Path) -> None:
    (report,) = describe_nodes(World(), tmp_path / "run", tmp_path / "stage")
    assert [place.rank for place in report.places] == [0]
    assert 0 < report.facts.memory_available_bytes < report.facts.memory_bytes
    assert set(report.facts.free_bytes) == {"run_dir", "stage", "/dev/shm"}
    assert report.clock == ClockOffset(0.0, 0.0)
