"""Forks ranks from a process that has imported everything: an attempt starts in half a second."""

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
"""The program of a rank: takes its rank and returns its exit code; None means 0."""


def fork_ranks(program: Program, ranks: int, output: int) -> list[int]:
    """Fork processes that run `program` and print to the descriptor `output`; return their ids.

    They are killed when the calling thread ends. No other thread may run.
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
    """Return the exit code of a child, or -N if signal N killed it; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


class Ranks:
    """The processes of one attempt; `reap` returns their exit codes."""

    def __init__(self, pids: Sequence[int], reap: Callable[[int], int | None] = reap) -> None:
        self.pids = pids
        self._reap = reap
        self._codes: dict[int, int] = {}

    def send(self, number: signal.Signals, pids: Sequence[int]) -> None:
        """Send a signal to those of `pids` that are still running."""
        self.poll()
        for pid in pids:
            if pid not in self._codes:
                os.kill(pid, number)

    def poll(self) -> bool:
        """Return whether all processes have ended."""
        for pid in self.pids:
            if pid not in self._codes and (code := self._reap(pid)) is not None:
                self._codes[pid] = code
        return len(self._codes) == len(self.pids)

    def wait(self, seconds: float) -> list[int]:
        """Return the exit codes; after `seconds`, kill remaining ranks and raise TimeoutError."""
        deadline = time.monotonic() + seconds
        for pid in self.pids:
            if pid not in self._codes and not _ends(pid, deadline - time.monotonic()):
                self.send(signal.SIGKILL, self.pids)
                raise TimeoutError(f"ranks were still running after {seconds} s")
        assert self.poll()
        return [self._codes[pid] for pid in self.pids]


def die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent, `parent`, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def _ends(pid: int, seconds: float) -> bool:
    """Wait for the end of a process that is not reaped yet; return whether it ended in time."""
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
    except BaseException:  # noqa: BLE001 - a forked process must not continue as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
