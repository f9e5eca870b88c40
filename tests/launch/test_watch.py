"""launch/watch.py on a machine without SLURM; with a real cluster, see tests/slurm."""

import signal
import subprocess
import time
from pathlib import Path

from launch.slurm.watch.ledger import hold_ledger
from tests.launch.queued_runs import command_of, environment_of, queued_run, run_program


def test_the_ledger_is_kept_and_held_by_one_watcher_at_a_time(tmp_path: Path) -> None:
    with hold_ledger(tmp_path) as ledger:
        ledger.add("start 7.1")
        other = run_program("watch.py", "--once", tmp_path)
        assert other.returncode == 2
        assert "already" in other.stderr
    with hold_ledger(tmp_path) as ledger:
        assert list(ledger.keys()) == ["start 7.1"]


def test_without_an_answer_it_exits_with_1_or_continues_and_reports_it_once(tmp_path: Path) -> None:
    queued_run(tmp_path, "test-a", "7")
    once = run_program("watch.py", "--once", tmp_path)
    assert (once.returncode, once.stdout.count("not on PATH")) == (1, 1)
    with subprocess.Popen(
        command_of("watch.py", "--every-seconds=0.1", tmp_path),
        env=environment_of(None),
        stdout=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdout is not None
        assert "not on PATH" in watcher.stdout.readline()
        time.sleep(1)
        assert watcher.poll() is None
        watcher.send_signal(signal.SIGINT)
        assert watcher.stdout.read() == ""
    assert watcher.returncode == 130
