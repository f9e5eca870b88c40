"""Health measurements on GPUs; with two, also of the link between them, over NCCL."""

import json
import re
from pathlib import Path

import pytest
import torch

from launch.local.ranks import run_ranks
from pipeline.distributed.health import check_health, describe_nodes, node_lines
from pipeline.distributed.health.nodes import driver_version
from pipeline.distributed.world import World

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

PAIR = """
import json, time
import torch
from dataclasses import asdict
from pathlib import Path
from pipeline.distributed.world import join_world
from pipeline.distributed.health import check_health

with join_world() as world:
    world.all_reduce_sum_(torch.zeros(1, device=world.device))  # connecting may take long
    started = time.monotonic()
    healths = [asdict(health) for health in check_health(world, 5.0)]
    found = {"healths": healths, "seconds": time.monotonic() - started}
    (Path(__file__).parent / f"{world.rank}.json").write_text(json.dumps(found))
"""


def test_a_single_gpu_measures_products_and_copies_and_keeps_its_generator() -> None:
    device = torch.device("cuda", 0)
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state(device)
    (health,) = check_health(World(device=device), 3.0)
    assert torch.equal(torch.cuda.get_rng_state(device), before)
    assert health.device == "GPU"
    assert health.matmul_teraflops > 1
    assert (health.host_to_device_gigabytes_per_second or 0) > 1
    assert health.all_reduce_gigabytes_per_second is None
    assert health.links == ()


def test_the_measurement_waits_for_the_products() -> None:
    """Timing only the launches would give figures far above any current GPU."""
    (health,) = check_health(World(device=torch.device("cuda", 0)), 2.0)
    assert health.matmul_teraflops < 10_000
    assert (health.host_to_device_gigabytes_per_second or 0) < 2_000


def test_a_node_reports_its_gpu_and_driver_versions(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+(\.\d+)*", driver_version())
    what, _ = node_lines(describe_nodes(World(device=torch.device("cuda", 0)), tmp_path, None))
    assert f"1 x {torch.cuda.get_device_name(0)}" in what
    assert f"CUDA {torch.version.cuda}" in what


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_measure_the_link_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pair.py").write_text(PAIR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_ranks(["pair"], ranks=2, cpu_only=False) == 0
    found = json.loads((tmp_path / "0.json").read_text())
    assert found["seconds"] < 15
    for health in found["healths"]:
        assert health["all_reduce_gigabytes_per_second"] > 0
        (link,) = health["links"]
        assert link["target"] == health["rank"]
        assert link["gigabytes_per_second"] > 0
