"""Exit codes, and the errors that have an exit code of their own."""

import os
import sys

from pipeline.system.secrets import hide_secrets

USER_MISTAKE, FAILURE = 2, 1
STOPPED = os.EX_TEMPFAIL
"""75, "try again later": the run was asked to stop; the same command resumes it."""
HUNG = 86
"""Ended by the watchdog."""
INTERRUPTED = 130
"""Ctrl-C, as shells report it."""


class LocalError(ValueError):
    """A user's mistake that only this rank knows of, so this rank must report it."""


class LossError(RuntimeError):
    """The loss became NaN or infinite."""


class NotSaved(RuntimeError):  # noqa: N818 - the disk failed, not the training
    """The disk stayed full: configuration, last weights or result of a run could not be written."""


class Stopped(Exception):  # noqa: N818 - it is not an error
    """The run was asked to stop, and all ranks stopped after the same step."""


class Interrupted(Stopped):
    """Whether the request was Ctrl-C."""


def exit_code(error: BaseException) -> int | None:
    """Return the exit code of `error`; None if its traceback should be shown instead."""
    match error:
        case ValueError():
            return USER_MISTAKE
        case LossError() | NotSaved():
            return FAILURE
        case Interrupted() | KeyboardInterrupt():
            return INTERRUPTED
        case Stopped():
            return STOPPED
        case _:
            return None


def report_error(error: BaseException, rank: int) -> None:
    """Print the message of an error that has an exit code, on a single rank."""
    match error:
        case LocalError() if rank:
            print(f"[rank {rank}] {hide_secrets(str(error))}", file=sys.stderr)
        case ValueError() | LossError() | NotSaved() if rank == 0:  # raised on all ranks
            print(hide_secrets(str(error)), file=sys.stderr)
        case _:
            pass
