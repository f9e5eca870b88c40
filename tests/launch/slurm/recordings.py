"""Recorded output of `scontrol show` on real clusters.

`defaults` has SLURM 22.05's default settings and a drained node n4. In `preempting`, urgent jobs
preempt others, in partition `gpu` without notice; it has limits, and nodes with features.
"""

from pathlib import Path

import pytest

from launch.diagnosis.cluster_rules import Cluster
from launch.slurm.api import cli
from launch.slurm.api.partitions import Partition, read_partitions

RECORDED = Path(__file__).parent / "recorded"
ENTITIES = {"config": "config", "partition": "partitions", "node": "nodes"}


def play_back(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the cluster `name` answer `launch.slurm.api.cli`."""

    def answer(*command: str) -> str:
        return (RECORDED / f"{name}-{ENTITIES[command[-1]]}.txt").read_text()

    monkeypatch.setattr(cli, "slurm", answer)


def recorded_settings(name: str) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        play_back(monkeypatch, name)
        return cli.show_config()


def recorded_partitions(name: str) -> dict[str, Partition]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        play_back(monkeypatch, name)
        return read_partitions()


def recorded(name: str, *chosen: str, **changes: str) -> Cluster:
    """A recorded cluster with some settings changed; a run may use `chosen` partitions, or all."""
    partitions = recorded_partitions(name)
    return Cluster(
        settings=recorded_settings(name) | changes,
        partitions=tuple(partitions.values()),
        chosen=tuple(partitions[each] for each in chosen or partitions),
    )
