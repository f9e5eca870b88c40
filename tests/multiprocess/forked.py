"""Ranks forked from a process that has imported everything: an attempt begins in half a second."""

import ctypes
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence

PR_SET_PDEATHSIG = 1

Program = Callable[[int], int | None]
"""What a rank does: takes its number and returns its exit code; None is 0."""


def fork_ranks(program: Program, ranks: int, output: int) -> list[int]:
    """Fork processes that run `program` and print into the file `output`; return their ids.

    They do not outlive the thread that calls this, which must be the only one at work.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [_fork(program, rank, shared, output) for rank in range(ranks)]


def reap(pid: int) -> int | None:
    """Return the exit code of a child, minus the signal that killed it; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


class Ranks:
    """The processes of one attempt, which `reap` asks for their exit codes."""

    def __init__(self, pids: Sequence[int], reap: Callable[[int], int | None] = reap) -> None:
        self.pids = pids
        self._reap = reap
        self._codes: dict[int, int] = {}

    def send(self, number: signal.Signals, pids: Sequence[int]) -> None:
        """Send a signal to those of `pids` that still run."""
        self.poll()
        for pid in pids:
            if pid not in self._codes:
                os.kill(pid, number)

    def poll(self) -> bool:
        """Return whether all have ended."""
        for pid in self.pids:
            if pid not in self._codes and (code := self._reap(pid)) is not None:
                self._codes[pid] = code
        return len(self._codes) == len(self.pids)

    def wait(self, seconds: float) -> list[int]:
        """Return the exit codes; after `seconds` kill all that still run and raise TimeoutError."""
        deadline = time.monotonic() + seconds
        for pid in self.pids:
            if pid not in self._codes and not _ends(pid, deadline - time.monotonic()):
                self.send(signal.SIGKILL, self.pids)
                raise TimeoutError(f"ranks still ran {seconds} s after what should have ended them")
        assert self.poll()
        return [self._codes[pid] for pid in self.pids]


def die_with(parent: int) -> None:
    """Let this process be killed when `parent`, which started it, ends in whatever way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        os._exit(1)


def _ends(pid: int, seconds: float) -> bool:
    """Wait for the end of a process that nobody has reaped; return whether it came in time."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], max(0, seconds))[0])
    finally:
        os.close(descriptor)


def _fork(program: Program, rank: int, shared: dict[str, str], output: int) -> int:
    parent = os.getpid()
    if pid := os.fork():
        return pid
    code = 1
    try:
        die_with(parent)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        code = program(rank) or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
