"""How a process ends: its exit code, and the errors that have one of their own."""

import os
import sys

USER_MISTAKE, FAILURE = 2, 1
STOPPED = os.EX_TEMPFAIL
"""75, "try again later": the run was asked to stop, and the same command resumes it."""
HUNG = 86
"""Ended by the watchdog."""
INTERRUPTED = 130
"""Ctrl-C, as shells report it."""


class LocalError(ValueError):
    """A mistake of the user's that only this rank has met, so that this rank must report it."""


class LossError(RuntimeError):
    """The loss is no longer a number."""


class Stopped(Exception):  # noqa: N818 - it is not an error
    """The run was asked to stop, and all ranks have stopped after the same step."""


def exit_code(error: BaseException) -> int | None:
    """Return the exit code that says enough of `error`; None if its traceback is to be shown."""
    match error:
        case ValueError():
            return USER_MISTAKE
        case LossError():
            return FAILURE
        case Stopped():
            return STOPPED
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return None


def report_error(error: BaseException, rank: int) -> None:
    """Print what the user needs to know of an error that has an exit code, on one rank of all."""
    match error:
        case LocalError() if rank:
            print(f"[rank {rank}] {error}", file=sys.stderr)
        case ValueError() | LossError() if rank == 0:  # all ranks know of it
            print(error, file=sys.stderr)
        case _:
            pass
