"""The benchmark of checkpoint saves measures what it claims, and fails if it cannot."""

import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
import torch

from launch.benchmarks.checkpoint_stall import (
    Training,
    compare_saves,
    measure,
    open_training,
    table,
)
from pipeline.checkpoint import Snapshot, write_checkpoint
from pipeline.config.schema import Ema, Train, model_named
from pipeline.runs.fence import Fence
from tests.support.run_folders import config

CPU = torch.device("cpu")
STATE = {"model": {"weight": torch.ones(10)}}


def test_a_background_save_costs_its_copy_and_waiting_costs_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(folder: Path, one: Snapshot, fence: Fence) -> Path:
        time.sleep(0.3)
        return write_checkpoint(folder, one, fence)

    monkeypatch.setattr("pipeline.checkpoint.saving.write_checkpoint", write_slowly)
    times = measure(Training(lambda: time.sleep(0.01), STATE, 10), tmp_path, CPU, rounds=3)
    assert median(times.stalls) < 0.1
    assert min(times.waits) > 0.3
    assert len(times.stalls) == len(times.waits) == 3
    assert len(times.disturbed_steps) > 3
    assert len(times.steps) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006"]


def test_times_are_printed_in_milliseconds_and_in_steps(tmp_path: Path) -> None:
    times = measure(Training(lambda: time.sleep(0.05), STATE, 10), tmp_path, CPU, rounds=2)
    times.steps[:], times.waits[:] = [0.1, 0.2, 0.4], [0.5, 0.6]
    times.disturbed_steps.clear()
    lines = [" ".join(line.split()) for line in table(times)]
    assert "step 100.0 / 200.0 / 400.0 1.000" in lines
    assert "save and wait 500.0 / 550.0 / 600.0 2.750" in lines
    assert "step while a checkpoint is written none: the write was shorter" in lines


def test_it_saves_what_a_run_saves(tmp_path: Path) -> None:
    small = config(
        tmp_path,
        model=model_named("cifar_resnet8"),
        train=Train(steps=1, global_batch=2, ema=Ema()),
    )
    training = open_training(small, CPU)
    assert list(training.state) == ["model", "momentum", "ema"]
    weight = training.state["model"]["conv1.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    before = weight.clone()
    training.step()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("rounds", [-1, 0, 1])
def test_too_few_rounds_are_refused(tmp_path: Path, rounds: int) -> None:
    with pytest.raises(ValueError, match=f"--rounds {rounds}: "):
        compare_saves(config(tmp_path), CPU, tmp_path, rounds=rounds)


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.checkpoint.saving.write_checkpoint", fail)
    monkeypatch.setattr(
        "launch.benchmarks.checkpoint_stall.open_training",
        lambda *_: Training(lambda: None, STATE, 10),
    )
    with pytest.raises(ValueError, match=r"--folder .*is not writable: .*No space left"):
        compare_saves(config(tmp_path), CPU, tmp_path, rounds=2)
    assert list(tmp_path.iterdir()) == []


def test_it_runs_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "launch/benchmark.py", "checkpoint", "configs/cifar10_resnet20.yaml"]
    smaller = ["model.name=cifar_resnet8", "train.global_batch=2", "model.batch_norm_group=null"]
    done = subprocess.run(
        [*command, *smaller, "--rounds", "2", "--folder", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^later saves in the background +\d", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
