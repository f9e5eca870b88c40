"""Starting trainings as a person does, with several ranks, and asking them to stop."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SECONDS = 90


def submit(*arguments: object, ranks: int) -> "subprocess.Popen[str]":
    """Start a training on the CPU of this machine."""
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), "--local"]
    return subprocess.Popen(
        [*command, "--ranks", str(ranks), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def ranks_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the processes that train: those of the ranks, or of the one rank that is alone."""
    children = psutil.Process(process.pid).children()
    found = {
        each.environ().get("RANK"): each for each in children if "launch.local" in each.cmdline()
    }
    return [found[rank] for rank in sorted(found, key=str)] or [psutil.Process(process.pid)]


def wait_until(done: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Look every few milliseconds; fail if the process ends before."""
    deadline = time.monotonic() + SECONDS
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Await the end; return the exit code and what was printed."""
    output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output
