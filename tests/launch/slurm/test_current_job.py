"""A job leaves bad nodes if other nodes can take their place."""

import pytest

from launch.slurm.api import current_job, jobs
from launch.slurm.api.cli import SlurmError
from launch.slurm.api.current_job import CurrentJob
from launch.slurm.api.jobs import read_jobs
from launch.slurm.api.nodes import Node, gpus_asked
from launch.slurm.api.partitions import fits, fitting_nodes
from tests.launch.slurm.recordings import play_back

RECORD = {"JobState": "RUNNING", "Partition": "gpu,cpu", "Features": "a100", "TresPerNode": ""}


def node(features: str, gpus: str) -> Node:
    return Node("n1", "n1", "10.0.0.1", 8, 1000, int(gpus[-1]), frozenset({features}), True, gpus)


def test_only_nodes_that_fit_the_job_can_take_the_place_of_a_bad_one() -> None:
    assert fits(node("a100", "gpu:a100:4"), RECORD)
    assert not fits(node("v100", "gpu:v100:4"), RECORD)
    assert fits(node("v100", "gpu:v100:4"), {"Features": "(null)"})
    for resources in ("gres:gpu:a100:4", "gres/gpu:a100=4", "gres:gpu:4"):
        record = {"TresPerNode": resources}
        assert fits(node("", "gpu:a100:4"), record)
        assert not fits(node("", "gpu:a100:2"), record)
    assert not fits(node("", "gpu:v100:4"), {"TresPerNode": "gres:gpu:a100:4"})


@pytest.mark.parametrize(
    ("resources", "asked"),
    [
        ("gres:gpu", ("", 1)),
        ("gres:nvme:2,gres:gpu:3g.20gb:7", ("3g.20gb", 7)),
        ("gres/gpu=8", ("", 8)),
        ("gres/gpumem=80G", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_gpus_are_read_as_any_version_of_slurm_writes_them(
    resources: str, asked: tuple[str, int]
) -> None:
    assert gpus_asked(resources) == asked


def test_the_nodes_that_fit_are_those_of_the_partitions_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play_back(monkeypatch, "preempting")
    of_gpu, of_main = {"n1", "n2"}, {"n1", "n2", "n3", "n4"}
    assert fitting_nodes({"Partition": "gpu,main", "Features": "a100"}) == [of_gpu, of_main]
    assert fitting_nodes({"Partition": "main", "Features": "v100"}) == [set()]


def test_a_site_that_forbids_changes_of_jobs_does_not_fail_a_requeue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*command: str) -> str:
        if command[1] == "update":
            raise SlurmError("Access/permission denied")
        return ""

    def show(entity: str, *_names: str) -> list[dict[str, str]]:
        return [RECORD] if entity == "job" else []

    def avoidable(_job: CurrentJob, _nodes: list[str]) -> bool:
        return True

    monkeypatch.setattr(current_job, "CHANGE_SECONDS", 0.0)
    monkeypatch.setattr(current_job, "slurm", refuse)
    monkeypatch.setattr(current_job, "show", show)
    monkeypatch.setattr(CurrentJob, "can_avoid", avoidable)
    CurrentJob("7", 0, ["n1"]).requeue(["n1"])
    assert "may get the same nodes again: Access/permission denied" in capsys.readouterr().err


def test_the_name_of_a_cluster_above_the_jobs_is_not_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = "7|RUNNING|1:00|2|2026-01-01T00:00:00|n[1-2]|None|2026-01-01T00:00:00|/r/script.sh"

    def answer(*_command: str) -> str:
        return f"CLUSTER: a\n{line}\n"

    monkeypatch.setattr(jobs, "slurm", answer)
    assert read_jobs(["7"]).keys() == {"7"}
