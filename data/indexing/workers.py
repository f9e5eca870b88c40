"""Worker processes, which never outlive this process."""

import ctypes
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1


def work_off(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Generator[tuple[int, Result], None, None]:
    """Yield the place of each item and what `function` returns for it, as soon as it is done.

    With one worker, this process does the work, in order. Close the generator to stop the workers
    at once. Raises the first error that `function` raises, and `ValueError` if a worker is killed.
    """
    if workers <= 1:
        yield from enumerate(map(function, items))
        return
    try:
        with _pool(workers) as pool:
            with _interrupts_blocked():  # workers start here and inherit it
                futures = {pool.submit(_do, function, item): at for at, item in enumerate(items)}
            for future in as_completed(futures):
                yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {workers} reading processes was killed, perhaps for lack of memory; run the"
            f" same command again, perhaps with --workers {max(1, workers // 2)}: it continues"
            " where this one stopped"
        ) from error


@contextmanager
def _pool(workers: int) -> Generator[ProcessPoolExecutor, None, None]:
    # Fresh interpreters: forking a process that has threads (as the progress bar does) may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (os.getpid(),))
    try:
        yield pool
    except BaseException:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Generator[None, None, None]:
    """Start processes that ignore Ctrl-C: this process handles it for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """End when `parent` ends, however it ends; clean up first if it asks this process to stop."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # `parent` ended before prctl
        os._exit(1)
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)


def _do(function: Callable[[Item], Result], item: Item) -> Result:
    try:
        return function(item)
    except SystemExit:  # otherwise the pool would continue with the next item
        os._exit(1)
