"""One thread per test process, Ctrl-C enabled, no process started without the mark for it."""

import os
import signal
import sys
from collections.abc import Generator
from itertools import groupby
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
WAITING = "slurm"
"""The folder of tests that mostly wait, for clusters."""

_unmarked: list[str] = []
"""The running test, if it must not start a process."""


def _refuse_process(event: str, _arguments: object) -> None:
    if event in STARTS and _unmarked:
        raise RuntimeError(f"{_unmarked[-1]} starts a process; mark it with @pytest.mark.process")


sys.addaudithook(_refuse_process)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _folder(item) in ALL_START_PROCESSES:
            item.add_marker(pytest.mark.process)
    items[:] = _spread_waiting(items)


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def _spread_waiting(items: list[pytest.Item]) -> list[pytest.Item]:
    """Put a file of tests that mostly wait before every third other file, as far as they last.

    Workers take the files in this order, so while some wait, others use the cores.
    """
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    waiting = [file for file in files if _folder(file[0]) == WAITING]
    busy = [file for file in files if _folder(file[0]) != WAITING]
    order: list[pytest.Item] = []
    for number, file in enumerate(busy):
        if waiting and number % 3 == 0:
            order += waiting.pop(0)
        order += file
    return [*order, *(item for file in waiting for item in file)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("process") is None:
        _unmarked.append(item.nodeid)
    try:
        return (yield)
    finally:
        _unmarked.clear()
