"""What an error that ends a training means to whoever started it."""

import sys

from pipeline.distributed.stopping import Stopped
from pipeline.distributed.world import LocalError
from pipeline.meter import LossError
from pipeline.system.signals import STOPPED

USERS_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


def exit_code(error: BaseException) -> int | None:
    """Return the exit code that says enough of `error`; None if it wants its traceback shown."""
    match error:
        case ValueError():
            return USERS_MISTAKE
        case LossError():
            return FAILURE
        case Stopped():
            return STOPPED
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return None


def tell(error: BaseException, rank: int) -> None:
    """Print what the user is to know of an error that has an exit code, on one rank of all."""
    match error:
        case LocalError() if rank:
            print(f"[rank {rank}] {error}", file=sys.stderr)
        case ValueError() | LossError() if rank == 0:  # all ranks know of it
            print(error, file=sys.stderr)
        case _:
            pass
