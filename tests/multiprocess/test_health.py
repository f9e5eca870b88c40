"""Real ranks measure themselves and the links between them, within a time limit."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.multiprocess.server import fork_server

SECONDS = 3.0
MARGIN_SECONDS = 20.0
WAIT_SECONDS = 240.0


def measure(folder: Path, *, nodes: int, gpus: int) -> list[Any]:
    """Return what each rank found, on nodes with `gpus` ranks each."""
    program = "tests.multiprocess.health_runs:main"
    ranks = nodes * gpus
    codes, output = (
        fork_server().start(program, folder, SECONDS, gpus, ranks=ranks).end(WAIT_SECONDS)
    )
    assert set(codes) == {0}, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def test_three_nodes_measure_everything_in_time_and_all_ranks_get_the_same(
    tmp_path: Path,
) -> None:
    found = measure(tmp_path, nodes=3, gpus=1)
    assert all(one["seconds"] < SECONDS + MARGIN_SECONDS for one in found)
    assert all(one["healths"] == other["healths"] for one, other in pairwise(found))
    healths = found[0]["healths"]
    assert [health["rank"] for health in healths] == [0, 1, 2]
    assert all(health["matmul_teraflops"] > 0 for health in healths)
    assert all(health["all_reduce_gigabytes_per_second"] > 0 for health in healths)
    assert all(health["host_to_device_gigabytes_per_second"] is None for health in healths)
    links = [link for health in healths for link in health["links"]]
    assert [(link["source"], link["target"]) for link in links] == [(2, 0), (0, 1), (1, 2)]
    assert all(link["gigabytes_per_second"] > 0 for link in links)
    assert "links between nodes" in found[0]["said"][0]


def test_nodes_of_two_ranks_measure_both_kinds_of_links_and_compare_their_clocks(
    tmp_path: Path,
) -> None:
    found = measure(tmp_path, nodes=2, gpus=2)
    links = [link for health in found[0]["healths"] for link in health["links"]]
    routes = {(link["source"], link["target"], link["route"]) for link in links}
    everywhere = "between nodes, all ranks at once"
    assert routes == {
        *((0, 1, "within a node"), (2, 3, "within a node")),
        *((1, 2, "between nodes"), (3, 0, "between nodes")),
        *((source, (source + 2) % 4, everywhere) for source in range(4)),
    }
    first, second = found[0]["reports"]
    assert [first["name"], second["name"]] == ["node0", "node1"]
    assert [place["rank"] for place in second["places"]] == [2, 3]
    assert first["clock"] == {"milliseconds": 0, "error_milliseconds": 0}
    clock = second["clock"]  # the same machine, and so the same clock
    assert 0 < clock["error_milliseconds"] < 1000
    assert abs(clock["milliseconds"]) <= clock["error_milliseconds"] + 1
    assert len(found[0]["lines"]) == 4
    assert found[1]["reports"][1]["clock"] is None
