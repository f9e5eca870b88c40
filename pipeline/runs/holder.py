"""The process on this machine that holds a run, and how to stop it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil

from pipeline.runs.folder import LOCK

LOCKS = Path("/proc/locks")


def holder(run_dir: Path) -> int | None:
    """Return the id of the process on this machine that holds the run, or None.

    It reads who has the lock and never takes it, which would keep a run from starting. A process
    of another user, or in a container, may not be found.
    """
    try:
        lock = (run_dir / LOCK).stat()
    except OSError:
        return None
    return next((pid for pid in _lockers() if _has_open(pid, lock)), None)


def ask_to_stop(run_dir: Path) -> int | None:
    """Send SIGTERM to the launcher of the run, or to the rank that holds it.

    Returns the process id that it was sent to, or None if no process on this machine holds the run.
    """
    pid = holder(run_dir)
    if pid is None:
        return None
    target = _launcher(pid) or pid
    try:
        # A process id may be reused by another process; a descriptor is not.
        descriptor = os.pidfd_open(target)
    except ProcessLookupError:
        return None
    try:
        if holder(run_dir) != pid:
            return None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    finally:
        os.close(descriptor)
    return target


def _lockers() -> Iterator[int]:
    """Yield the ids of the processes with an exclusive flock, as runs take it."""
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kind, _, mode, pid, *_ = line.split()
        if (kind, mode) == ("FLOCK", "WRITE") and int(pid) > 0:
            yield int(pid)


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    # On some file systems, the inode in /proc/locks differs from that of stat.
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for file in files:
        with contextlib.suppress(OSError):
            if os.path.samestat(file.stat(), wanted):
                return True
    return False


def _launcher(pid: int) -> int | None:
    """Return the launcher of a rank, which puts its own process id into the rank's command."""
    try:
        process = psutil.Process(pid)
        words, parent = process.cmdline(), process.ppid()
    except psutil.Error:
        return None
    started_so = any(pair == ("launch.local.ranks", str(parent)) for pair in pairwise(words))
    return parent if started_so else None
