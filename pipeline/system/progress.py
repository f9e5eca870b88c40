"""Progress of long reads and copies: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Lock

from pipeline.system.text import rate, share

LINE_EVERY_SECONDS = 30.0
QUICK_BYTES = 32_000_000
"""Reading or copying at most this is quick: nothing is shown."""

Advance = Callable[[int], None]
"""Called with the bytes done since the last call, from any thread."""


@contextmanager
def byte_progress(what: str, *, total: int, already: int = 0) -> Generator[Advance]:
    """Show on standard error how much of `total` bytes is done, MB/s and the time left.

    `already` bytes were done by an earlier attempt: they count as done, but not for the speed.
    """
    if total <= QUICK_BYTES:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(what, total=total, already=already) as advance:
            yield advance
    else:
        yield _Lines(what, total=total, already=already).advance


@contextmanager
def _bar(what: str, *, total: int, already: int) -> Generator[Advance]:
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(what, total=total, completed=already)
        yield lambda count: bar.advance(task, count)


class _Lines:
    def __init__(self, what: str, *, total: int, already: int) -> None:
        self._what, self._total, self._already = what, total, already
        self._done = already
        self._started = self._printed = time.monotonic()
        self._lock = Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._printed < LINE_EVERY_SECONDS:
                return
            self._printed = now
            line = self._line(now - self._started)
        with suppress(OSError, ValueError):  # standard error may be closed
            print(line, file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        speed = (self._done - self._already) / seconds
        left = timedelta(seconds=round((self._total - self._done) / speed)) if speed else "?"
        return (
            f"{self._what}: {share(self._done, self._total)}, {rate(speed / 1e6)} MB/s, {left} left"
        )
