"""Nothing hangs forever: a lost rank ends the others within a time limit."""

import os
import signal
import time
from pathlib import Path

import pytest

from launch.local.ranks import run_ranks
from pipeline.system.exit_codes import HUNG, STOPPED
from tests.multiprocess.runs import events, newest, start, write_recipe
from tests.multiprocess.server import fork_server
from tests.multiprocess.stops import SECONDS, end, ranks_of, submit, wait_until
from tests.support.images import make_dataset


def test_a_frozen_rank_ends_the_run_and_the_other_reports_where_it_waited(
    tmp_path: Path,
) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=90, val=23))
    run = tmp_path / "run"
    minutes, steps = "train.watchdog_minutes=0.1", "train.steps=100000"
    process = submit(recipe, f"run_dir={run}", minutes, steps, ranks=2)
    wait_until(lambda: newest(run) >= 10, process)
    frozen = ranks_of(process)[1]
    frozen.send_signal(signal.SIGSTOP)
    code, output = end(process)
    assert code == HUNG, output
    assert "no progress for" in output
    assert not frozen.is_running()
    stacks = (run / "stacks" / "rank-0.txt").read_text()
    assert "in fit" in stacks
    assert not (run / "stacks" / "rank-1.txt").exists()
    (last,) = events(run, "run_ended")
    assert last["status"] == "failed"
    assert "rank-0.txt" in last["message"]


def test_a_loss_that_is_not_finite_ends_all_ranks_and_one_reports_it(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=90, val=23))
    training = start(recipe, f"run_dir={tmp_path / 'run'}", "optim.lr=1e30", ranks=2)
    codes, output = training.end(SECONDS)
    assert codes == [1, 1], output
    assert "Traceback" not in output
    assert output.count("\nthe loss became nan") == 1  # besides the console
    (last,) = events(tmp_path / "run", "run_ended")
    assert last["status"] == "failed"


def test_the_watchdog_ends_a_run_whose_dataset_never_opens(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=20, val=5))
    (tmp_path / "data" / "manifest.json").unlink()
    os.mkfifo(tmp_path / "data" / "manifest.json")  # like a file on a lost server
    program = "tests.multiprocess.hanging_runs:impatient"
    forked = fork_server().start(program, recipe, "train.watchdog_minutes=0.02", ranks=1)
    codes, output = forked.end(SECONDS)
    assert codes == [HUNG], output
    assert "no progress for" in output
    assert "in open_split" in output


LOST = """
import os, signal, sys
from pathlib import Path
from pipeline.distributed.world import join_world
from pipeline.train import await_others

with join_world() as world:
    world.gather(None)
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    await_others(world)
    (Path(__file__).parent / "left").touch()
    os._exit(75)
"""


def test_a_stopped_rank_ends_normally_if_another_dies_while_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lost.py").write_text(LOST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_ranks(["lost"], ranks=2, cpu_only=True) in (1, STOPPED)  # whichever ends first
    assert (tmp_path / "left").exists()
    errors = capfd.readouterr().err
    assert "[rank 0] stopped, but lost another rank" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("wait", ["all_reduce_max_async", "gather"])
def test_a_collective_fails_if_a_rank_does_not_join(tmp_path: Path, wait: str) -> None:
    program = "tests.multiprocess.hanging_runs:missing"
    started = time.monotonic()
    codes, output = fork_server().start(program, wait, tmp_path / "failed", ranks=2).end(SECONDS)
    assert codes == [0, 0], output
    assert time.monotonic() - started < 60
    assert (tmp_path / "failed").exists()
