"""Waiting for a disk that is full, or for a file server that restarts."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.system.output import print_warning

T = TypeVar("T")

FULL = {errno.ENOSPC, errno.EDQUOT}
UNREACHABLE = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN}
"""What a network file system reports while its server restarts."""
PATIENCE_SECONDS = 45.0
"""How long a disk may be full or unreachable before its error counts."""
RETRY_SECONDS = 0.5


def patiently(
    use_disk: Callable[[], T],
    *,
    seconds: float | None = None,
    give_up: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = print_warning,
) -> T:
    """Return the result of `use_disk`, which is repeated while the disk is full or unreachable.

    `warn` gets one message before the first retry. Raises the OSError of `use_disk` if it has
    another reason, or if it lasts for `seconds` (PATIENCE_SECONDS by default) or until `give_up()`.
    """
    patience = PATIENCE_SECONDS if seconds is None else seconds
    deadline, warned = time.monotonic() + patience, False
    while True:
        try:
            return use_disk()
        except OSError as error:
            if not may_pass(error) or give_up() or time.monotonic() >= deadline:
                raise
            if not warned:
                warned = True
                warn(f"{error}; retrying for up to {patience:.0f} s")
        time.sleep(RETRY_SECONDS)


def may_pass(error: OSError) -> bool:
    """Whether the disk is full or unreachable, which may end by itself."""
    return error.errno in FULL | UNREACHABLE
