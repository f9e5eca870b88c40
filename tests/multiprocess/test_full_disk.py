"""A disk that is full for seconds costs nothing; else the run ends unfinished, and resumes."""

import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from pipeline.system.exit_codes import STOPPED
from tests.multiprocess.runs import (
    events,
    finish,
    newest,
    result,
    start,
    state,
    train_until,
    write_recipe,
)
from tests.multiprocess.server import fork_server
from tests.multiprocess.stops import ROOT, SECONDS, wait_until
from tests.support.images import make_dataset
from tests.support.small_disk import SmallDisk, small_disk

IMPATIENT = "tests.multiprocess.full_disk_runs:impatient"
TWO_SAVES = ("train.steps=8", "train.log_every_steps=2", "checkpoint.every_steps=4")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    return write_recipe(folder, make_dataset(folder / "data", train=90, val=23))


@pytest.fixture
def disk(tmp_path: Path) -> Generator[SmallDisk]:
    with small_disk(tmp_path / "disk", "50m") as disk:
        yield disk


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_run_whose_last_weights_are_not_on_disk_is_not_finished(
    recipe: Path, tmp_path: Path, disk: SmallDisk, ranks: int
) -> None:
    whole, run = tmp_path / "whole", disk.folder / "run"
    finish(start(recipe, *TWO_SAVES, f"run_dir={whole}", ranks=ranks))
    disk.resize("1600k")  # room for one checkpoint
    arguments = (recipe, *TWO_SAVES, f"run_dir={run}")
    codes, output = fork_server().start(IMPATIENT, *arguments, ranks=ranks).end(SECONDS)
    assert codes == [1] * ranks, output
    assert "Traceback" not in output
    assert output.count("\nthe run is not finished: its last checkpoint, of step 8,") == 1, output
    assert "the newest is of step 4; free space there, or repair the disk, and run the" in output
    assert not (run / "result.json").exists()
    assert newest(run) == 4
    assert events(run, "run_ended")[-1]["status"] == "failed"

    disk.resize("50m")
    finish(start(*arguments, ranks=ranks))
    assert result(run)["steps"] == newest(run) == 8
    expected, found = state(whole), state(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_disk_that_is_full_at_the_end_for_a_while_delays_the_end(
    recipe: Path, disk: SmallDisk
) -> None:
    """It is full from the first checkpoint on, also for the last one and the result."""
    run = disk.folder / "run"
    training = start(recipe, *TWO_SAVES, f"run_dir={run}")
    train_until(lambda: newest(run) == 4, training)
    with disk.full_for(4):
        finish(training)
    assert result(run)["steps"] == newest(run) == 8
    assert [event["step"] for event in events(run, "progress")] == [2, 4, 6, 8]
    assert events(run, "run_ended")[-1]["status"] == "finished"


def test_a_run_starts_although_the_disk_is_full_for_a_while(recipe: Path, disk: SmallDisk) -> None:
    run = disk.folder / "run"
    with disk.full_for(3):
        finish(start(recipe, *TWO_SAVES, f"run_dir={run}", ranks=2))
    assert result(run)["steps"] == newest(run) == 8


def test_a_log_on_a_full_disk_resumes(recipe: Path, disk: SmallDisk) -> None:
    run, log = disk.folder / "run", disk.folder / "log"
    settings = ("train.steps=1000000", "train.log_every_steps=1", f"run_dir={run}")
    command = [sys.executable, "-m", "pipeline.train", str(recipe), *settings]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, text=True)
    wait_until(lambda: newest(run) >= 10, process)
    with disk.full_for(3):
        pass
    resumed = steps_shown(log)[-1] + 1
    wait_until(lambda: steps_shown(log)[-1] > resumed + 100, process)
    process.terminate()
    assert process.wait(SECONDS) == STOPPED, log.read_text()

    reported, shown = [event["step"] for event in events(run, "progress")], steps_shown(log)
    assert reported == list(range(1, reported[-1] + 1))
    assert shown == [step for step in reported if step in set(shown)]
    gap = [step for step in reported if step not in set(shown)]
    assert gap == list(range(gap[0], gap[-1] + 1)), "one gap"
    lines = log.read_text().splitlines()
    (note,) = (line for line in lines if "lines are missing here" in line)
    assert int(re.sub(r"\D", "", note.partition(" ")[0])) >= len(gap)
    before, after = lines[: lines.index(note)], lines[lines.index(note) :]
    assert steps_in(before)[-1] == gap[0] - 1
    assert steps_in(after)[0] == gap[-1] + 1


def steps_shown(log: Path) -> list[int]:
    return steps_in(log.read_text().splitlines())


def steps_in(lines: list[str]) -> list[int]:
    found = (re.match(r"step ([\d,]+)/.* left$", line) for line in lines)
    return [int(match[1].replace(",", "")) for match in found if match]
