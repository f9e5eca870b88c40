"""One thread per test process, Ctrl-C enabled, no process started without the mark for it."""

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes share the cores

# Shells start background jobs with Ctrl-C ignored, which children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""Python's audit events for starting a process."""
ALL_START_PROCESSES = ("gpu", "multiprocess", "slurm")
"""Folders of tests in which every test has the mark `process`."""

_unmarked: list[str] = []
"""The running test, if it must not start a process."""


def _refuse_process(event: str, _arguments: object) -> None:
    if event in STARTS and _unmarked:
        raise RuntimeError(f"{_unmarked[-1]} starts a process; mark it with @pytest.mark.process")


sys.addaudithook(_refuse_process)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in ALL_START_PROCESSES:
            item.add_marker(pytest.mark.process)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("process") is None:
        _unmarked.append(item.nodeid)
    try:
        return (yield)
    finally:
        _unmarked.clear()
