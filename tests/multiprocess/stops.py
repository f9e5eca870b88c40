"""Starts trainings from the command line, on several ranks, and asks them to stop."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SECONDS = 240


Process = subprocess.Popen[str]


def submit(*arguments: object, ranks: int) -> Process:
    """Start a training on the CPUs of this machine."""
    return _start(ROOT / "launch" / "submit.py", "--local", "--ranks", ranks, *arguments)


def torchrun(*arguments: object, ranks: int) -> Process:
    """Start a training with torchrun instead of this project's launcher."""
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", ranks]
    return _start("-m", "torch.distributed.run", *options, "-m", "pipeline.train", *arguments)


def train_alone(*arguments: object) -> Process:
    """Start a training of one rank without a launcher."""
    return _start("-m", "pipeline.train", *arguments)


def _start(*command: object) -> Process:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def ranks_of(process: Process) -> list[psutil.Process]:
    """Return the processes of the ranks, in order; without a launcher, the process itself."""
    children = psutil.Process(process.pid).children()
    found = {
        each.environ().get("RANK"): each
        for each in children
        if "launch.local.ranks" in each.cmdline()
    }
    return [found[rank] for rank in sorted(found, key=str)] or [psutil.Process(process.pid)]


def wait_until(done: Callable[[], bool], process: Process) -> None:
    """Wait until `done()`; fail if the process ends first."""
    deadline = time.monotonic() + SECONDS
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def end(process: Process) -> tuple[int, str]:
    """Wait for the end; return the exit code and the output."""
    output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


def succeed(process: Process) -> None:
    """Wait for a training that must succeed."""
    code, output = end(process)
    assert code == 0, output


def kill_all(process: Process) -> None:
    """SIGKILL a training and all its ranks, which have separate sessions under torchrun."""
    everyone = [psutil.Process(process.pid)]
    everyone += everyone[0].children(recursive=True)
    for victim in everyone:
        victim.kill()
    process.communicate()
