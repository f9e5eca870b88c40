"""Nothing hangs for ever: a rank that is lost, in whatever way, ends the others within a time."""

import signal
import time
from pathlib import Path

import pytest

from launch.local import run_ranks
from pipeline.watchdog import HUNG
from tests.images import make_dataset
from tests.multiprocess.runs import events, newest, write_recipe
from tests.multiprocess.stops import end, ranks_of, submit, wait_until

pytestmark = pytest.mark.xdist_group("stopping")


def test_a_rank_that_is_frozen_ends_the_run_and_the_other_tells_where_it_waited(
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
    assert "nothing has gone forward" in output
    assert not frozen.is_running()
    stacks = (run / "stacks" / "rank-0.txt").read_text()
    assert "in fit" in stacks
    assert not (run / "stacks" / "rank-1.txt").exists()
    (last,) = events(run, "run_ended")
    assert last["status"] == "failed"
    assert "rank-0.txt" in last["message"]


MISSING = """
import os, time
from pathlib import Path
from pipeline.distributed import join_world

with join_world() as world:
    assert world.begin_maximum([world.rank, -world.rank])() == [1, 0]
    world.expect_answers_within(1 / 60)
    if world.rank == 1:
        while not (Path(__file__).parent / "failed").exists():
            time.sleep(0.01)
    elif world.is_main:
        try:
            world.{}
        except RuntimeError as error:
            (Path(__file__).parent / "failed").write_text(str(error))
    os._exit(0)
"""


@pytest.mark.parametrize("wait", ["begin_maximum([1])()", "gather(1)"])
def test_a_collective_fails_if_a_rank_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    (tmp_path / "missing.py").write_text(MISSING.format(wait))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    assert run_ranks(["missing"], ranks=2, cpu_only=True) == 0
    assert time.monotonic() - started < 60
    assert (tmp_path / "failed").exists()
