"""Ends a process that has stopped going forward, and leaves behind where it stood."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

from pipeline.system.exit_codes import HUNG

PATIENCE_MINUTES = 30.0
"""At least so long may last what is no step: compiling, evaluating a batch, the last write."""
PATIENCE_HOURS = 12.0
"""So long may last what goes through all of the data before the first step: to copy, to check."""
POLL_SECONDS = 5.0
LAST_WORDS_SECONDS = 10.0
"""Where the disk is what hangs, the process ends without its stacks."""
DEAF_SECONDS = 2 * 60 * 60.0
"""A process in which no Python thread has run for so long is ended, with exit code 1."""


class Watchdog(AbstractContextManager["Watchdog"]):
    """Ends the process once `minutes` go by without a step in the block; None or 0 is never.

    It begins with `expect_other`. Time in which the process itself was suspended does not count.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.stacks: Path | None = None
        """The file that the stacks of all threads go to in the end; None is standard error."""
        self.tell: Callable[[str], None] | None = None
        """Hears of the end, too."""
        self._step_seconds = 60 * (minutes or 0)
        self._other_seconds = max(self._step_seconds, 60 * PATIENCE_MINUTES)
        self._hours_seconds = max(self._other_seconds, 3600 * PATIENCE_HOURS)
        self._limit = self._other_seconds
        self._signs = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._step_seconds:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def expect_step(self) -> None:
        """A step is done, and the next one follows."""
        self._limit = self._step_seconds
        self._signs += 1

    def expect_other(self) -> None:
        """Something else is done or begins, which takes its own time."""
        self._limit = self._other_seconds
        self._signs += 1

    def expect_hours(self) -> None:
        """All of the data is copied or checked now."""
        self._limit = self._hours_seconds
        self._signs += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        poll = min(POLL_SECONDS, self._step_seconds / 10)
        seen, still, last = self._signs, 0.0, time.monotonic()
        while not self._ended.wait(poll):
            # Native code that never lets Python run would silence this thread, too.
            faulthandler.dump_traceback_later(DEAF_SECONDS, exit=True, file=2)
            now = time.monotonic()
            passed, last = min(now - last, 2 * poll), now  # more: the process was suspended
            still = still + passed if self._signs == seen else 0.0
            seen = self._signs
            if still > self._limit:
                self._end(still)

    def _end(self, seconds: float) -> None:
        threading.Timer(LAST_WORDS_SECONDS, os._exit, (HUNG,)).start()
        where = self.stacks or "below"
        message = (
            f"nothing has gone forward for {seconds / 60:.1f} min; stacks of all threads: {where}"
        )
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
        with suppress(OSError):
            _dump(self.stacks)
        if self.tell:
            self.tell(message)
        os._exit(HUNG)


def _dump(stacks: Path | None) -> None:
    if stacks is None:
        faulthandler.dump_traceback(2, all_threads=True)
        return
    stacks.parent.mkdir(parents=True, exist_ok=True)
    with stacks.open("w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
