"""A process that starts daemons on request and kills all of them when it ends.

It adopts orphans of its daemons, so that no descendant escapes. When its starter ends, even by
SIGKILL, it kills every descendant and ends, too.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>
SECONDS_TO_END = 20


class Keeper:
    """The starter's handle."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Start a program and append its output to `log`; return its process id."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"argv": list(argv), "log": str(log), "environment": dict(environment)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the keeper ended while starting {argv[0]}"
        return int(answer)


@contextlib.contextmanager
def keep_daemons() -> Generator[Keeper]:
    """Yield a keeper; after the block, nothing that it started is alive."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C must only reach the starter
    )
    with process:
        try:
            yield Keeper(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(SECONDS_TO_END)


def serve() -> None:
    starter = os.pidfd_open(os.getppid())
    while starter not in select.select([0, starter], [], [])[0]:
        order = sys.stdin.readline()
        if not order:
            return
        print(spawn(**json.loads(order)), flush=True)


def spawn(argv: list[str], log: str, environment: dict[str, str]) -> int:
    return os.posix_spawnp(
        "setpriv",
        ["setpriv", "--pdeathsig", "KILL", "--", *argv],  # in case the keeper itself is killed
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def leave(*_: Any) -> None:
    sys.exit()


def reap(*_: Any) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_all() -> None:
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGTERM, leave)
    try:
        serve()
    finally:
        end_all()
