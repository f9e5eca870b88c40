"""Locks on files: they go with the process that holds them, however it ends."""

import fcntl
from pathlib import Path
from typing import IO, Any


def lock_file(file: IO[Any], *, wait: bool = False) -> bool:
    """Lock an open file for this process alone; return whether it has the lock.

    Without `wait` it returns False at once if another process has the lock. Raises `OSError` where
    the file system has no locks.
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
