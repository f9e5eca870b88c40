"""Ends a process that makes no progress, and writes the stacks of its threads."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

from pipeline.system.durable import write_durably
from pipeline.system.exit_codes import HUNG
from pipeline.system.patience import patiently

PATIENCE_MINUTES = 30.0
"""Minimum timeout outside a training step (compiling, evaluating, the final checkpoint)."""
PATIENCE_HOURS = 12.0
"""Minimum timeout of passes over all of the data before the first step (copying, checking)."""
POLL_SECONDS = 5.0
LAST_WORDS_SECONDS = 10.0
"""If the disk hangs, the process ends without its stacks."""
STACKS_SECONDS = 8.0
"""If the disk stays full, they are printed instead."""
DEAF_SECONDS = 2 * 60 * 60.0
"""A process in which no Python thread runs for this long is ended, with exit code 1."""


class Watchdog(AbstractContextManager["Watchdog"]):
    """Ends the process if a step in the block takes more than `minutes`; None or 0 disables it.

    The block starts in `expect_other`. Time in which the process was suspended does not count.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.stacks: Path | None = None
        """The file for the stacks of all threads; None is standard error."""
        self.on_hang: Callable[[str], None] | None = None
        """Called with the reason before the process ends."""
        self._step_seconds = 60 * (minutes or 0)
        self._other_seconds = max(self._step_seconds, 60 * PATIENCE_MINUTES)
        self._hours_seconds = max(self._other_seconds, 3600 * PATIENCE_HOURS)
        self._limit = self._other_seconds
        self._reports = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def other_minutes(self) -> float:
        """The limit outside a training step."""
        return self._other_seconds / 60

    def __enter__(self) -> "Watchdog":
        if self._step_seconds:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def expect_step(self) -> None:
        """Report progress; a training step comes next."""
        self._limit = self._step_seconds
        self._reports += 1

    def expect_other(self) -> None:
        """Report progress; something other than a step comes next."""
        self._limit = self._other_seconds
        self._reports += 1

    def expect_hours(self) -> None:
        """Report progress; a pass over all of the data comes next."""
        self._limit = self._hours_seconds
        self._reports += 1

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
        seen, still, last = self._reports, 0.0, time.monotonic()
        while not self._ended.wait(poll):
            # Native code that blocks Python would block this thread, too.
            faulthandler.dump_traceback_later(DEAF_SECONDS, exit=True, file=2)
            now = time.monotonic()
            passed, last = min(now - last, 2 * poll), now  # longer: the process was suspended
            still = still + passed if self._reports == seen else 0.0
            seen = self._reports
            if still > self._limit:
                self._end(still)

    def _end(self, seconds: float) -> None:
        threading.Timer(LAST_WORDS_SECONDS, os._exit, (HUNG,)).start()
        where = self.stacks or "below"
        message = f"no progress for {seconds / 60:.1f} min; stacks of all threads: {where}"
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
        _keep_stacks(self.stacks)
        if self.on_hang:
            self.on_hang(message)
        os._exit(HUNG)


def _keep_stacks(file: Path | None) -> None:
    """Write the stacks of all threads to `file`; print them if that fails, or it is None."""
    stacks = _stacks()

    def write(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, stacks)

    if file is not None:
        with suppress(OSError):
            patiently(lambda: write(file), seconds=STACKS_SECONDS)
            return
    with suppress(OSError):
        os.write(2, stacks)


def _stacks() -> bytes:
    """Return the stacks of all threads; in memory, since faulthandler ignores a full disk."""
    with os.fdopen(os.memfd_create("stacks"), "r+b") as memory:
        faulthandler.dump_traceback(memory, all_threads=True)
        memory.seek(0)
        return memory.read()
