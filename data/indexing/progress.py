"""How far reading has come: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_EVERY_SECONDS = 30.0
MEGABYTE = 1e6
GIGABYTE = 1e9

Advance = Callable[[int], None]
"""Called with the bytes that were dealt with since the last call."""


@contextmanager
def byte_progress(what: str, *, total: int, already: int = 0) -> Generator[Advance, None, None]:
    """Show on standard error how much of `total` bytes is done, MB/s and the time that is left.

    `already` bytes were done by an earlier attempt: they count as done, but not for the speed.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(what, total=total, completed=already)
            yield lambda done: bar.advance(task, done)
    else:
        yield _Lines(console, what, total=total, already=already)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class _Lines:
    def __init__(self, console: Console, what: str, *, total: int, already: int) -> None:
        self._console, self._what, self._total, self._done = console, what, total, already
        self._already = already
        self._started = self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        self._done += done
        now = time.monotonic()
        if now - self._told >= LINE_EVERY_SECONDS:
            self._told = now
            self._console.print(self._line(now - self._started), highlight=False, soft_wrap=True)

    def _line(self, seconds: float) -> str:
        speed = (self._done - self._already) / seconds
        left = timedelta(seconds=round((self._total - self._done) / speed)) if speed else "?"
        return (
            f"{self._what}: {self._done / GIGABYTE:,.1f} of {self._total / GIGABYTE:,.1f} GB, "
            f"{speed / MEGABYTE:,.0f} MB/s, {left} left"
        )
