"""Locks on files; the system releases them when the process ends, however it ends."""

import fcntl
from pathlib import Path
from typing import IO, Any


def lock_file(file: IO[Any], *, wait: bool = False) -> bool:
    """Lock an open file for this process alone; return whether it has the lock.

    With `wait` it waits for the lock; otherwise it returns False if another process has it. Raises
    `OSError` if the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_locked(path: Path, *, wait: bool = False) -> IO[str] | None:
    """Open `path` for appending and lock it; None if another process has the lock.

    The lock is held until the file is closed.
    """
    file = path.open("a")
    try:
        if lock_file(file, wait=wait):
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None
