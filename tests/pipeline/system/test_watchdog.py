"""A process that hangs is ended, wherever it hangs, and its stacks are kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.system.exit_codes import HUNG
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
SECONDS = 30
PROGRAM = """
import ctypes, sys, threading, time
from pathlib import Path
from pipeline.system import watchdog
from pipeline.system.watchdog import Watchdog

HERE = Path(sys.argv[1])

def wait_for_ever():  # in native code
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex), lock(mutex)

def another_thread():
    threading.Event().wait()

def hang():
    threading.Thread(target=another_thread, daemon=True).start()
    wait_for_ever()

def on_hang(message):
    (HERE / "message").write_text(message)

with Watchdog({minutes}) as dog:
    dog.stacks, dog.on_hang = HERE / "stacks" / "rank-3.txt", on_hang
"""


def start(folder: Path, lines: str, minutes: float | None = 0.005) -> "subprocess.Popen[str]":
    script = PROGRAM.format(minutes=minutes) + "".join(
        f"    {line}\n" for line in lines.split("\n")
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=SECONDS)
    return process.returncode, said


def test_a_process_that_hangs_is_ended_and_its_stacks_are_kept(tmp_path: Path) -> None:
    code, said = end(start(tmp_path, "dog.expect_step()\nhang()"))
    assert code == HUNG == 86
    stacks = (tmp_path / "stacks" / "rank-3.txt").read_text()
    for function in ("wait_for_ever", "another_thread", "_watch"):
        assert f"in {function}" in stacks
    assert str(tmp_path / "stacks" / "rank-3.txt") in said
    assert (tmp_path / "message").read_text() == said.strip()


@pytest.mark.parametrize(
    ("lines", "minutes"),
    [
        ("for _ in range(150): dog.expect_step(); time.sleep(0.02)", 0.02),
        ("time.sleep(1)", 0.005),
        ("dog.expect_step(); dog.expect_other()\ntime.sleep(1)", 0.005),
        ("dog._other_seconds = 0.1; dog.expect_hours()\ntime.sleep(1)", 0.005),
        ("dog.expect_step()\ntime.sleep(1)", None),
        ("dog.expect_step()\ntime.sleep(1)", 0),
    ],
    ids=["progress", "before the first step", "outside a step", "hours", "off", "zero"],
)
def test_a_process_that_makes_progress_is_left_alone(
    tmp_path: Path, lines: str, minutes: float | None
) -> None:
    assert end(start(tmp_path, lines, minutes)) == (0, "")
    assert not list(tmp_path.iterdir())


def test_the_time_outside_a_step_is_limited_too(tmp_path: Path) -> None:
    lines = "dog._other_seconds = 0.5\ndog.expect_step(); dog.expect_other()\nhang()"
    assert end(start(tmp_path, lines))[0] == HUNG


@pytest.mark.parametrize("expected", ["other", "hours"])
def test_without_a_run_folder_the_stacks_are_printed(tmp_path: Path, expected: str) -> None:
    lines = f"dog.stacks = None\ndog._{expected}_seconds = 0.5\ndog.expect_{expected}()\nhang()"
    code, said = end(start(tmp_path, lines))
    assert code == HUNG
    for function in ("wait_for_ever", "another_thread", "_watch"):
        assert f"in {function}" in said


def test_suspended_time_does_not_count(tmp_path: Path) -> None:
    lines = "(HERE / 'ready').touch()\nwhile not (HERE / 'go').exists():\n"
    lines += "    dog.expect_step(); time.sleep(0.01)"
    process = start(tmp_path, lines, minutes=0.02)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    (tmp_path / "go").touch()
    assert end(process) == (0, "")


def test_a_hanging_disk_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    os.mkfifo(tmp_path / "stacks" / "rank-3.txt")  # never read
    lines = "watchdog.LAST_WORDS_SECONDS = 0.3\ndog.expect_step()\nhang()"
    assert end(start(tmp_path, lines))[0] == HUNG


@pytest.mark.parametrize("end_of", ["the full disk", "patience"])
def test_a_full_disk_does_not_cost_the_stacks(tmp_path: Path, end_of: str) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        lines = f"dog.stacks = Path({str(disk.folder)!r}) / 'stacks' / 'rank-3.txt'\n"
        lines += "watchdog.STACKS_SECONDS = 0.2\n" if end_of == "patience" else ""
        with disk.full_for(2):
            code, said = end(start(tmp_path, lines + "dog.expect_step()\nhang()"))
        assert code == HUNG
        file = disk.folder / "stacks" / "rank-3.txt"
        stacks = said if end_of == "patience" else file.read_text()
    for function in ("wait_for_ever", "another_thread", "_watch"):
        assert f"in {function}" in stacks


def test_native_code_that_blocks_python_is_ended_too(tmp_path: Path) -> None:
    lines = "watchdog.DEAF_SECONDS = 1.0\ntime.sleep(0.3)\n"
    lines += "ctypes.PyDLL(None).sleep(60)  # keeps Python's lock"
    code, said = end(start(tmp_path, lines))
    assert code == 1
    assert "Timeout" in said
    assert "Thread" in said
