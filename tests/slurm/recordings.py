"""What `scontrol show` said of real clusters, played back.

`defaults` has SLURM 22.05's own settings, and a node n4 that is drained. In `preempting` urgent
jobs push others aside, from partition `gpu` without notice; it has limits, and nodes with features.
"""

from pathlib import Path

import pytest

from launch.slurm.api import cli as commands
from launch.slurm.api.partition import Partition
from launch.slurm.submit.capacity import read_partitions

RECORDED = Path(__file__).parent / "recorded"
ENTITIES = {"config": "config", "partition": "partitions", "node": "nodes"}


def play_back(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let `launch.slurm.api.cli` hear what the cluster `name` said."""

    def answer(*command: str) -> str:
        return (RECORDED / f"{name}-{ENTITIES[command[-1]]}.txt").read_text()

    monkeypatch.setattr(commands, "slurm", answer)


def recorded_settings(name: str) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        play_back(monkeypatch, name)
        return commands.show_config()


def recorded_partitions(name: str) -> dict[str, Partition]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        play_back(monkeypatch, name)
        return read_partitions()
