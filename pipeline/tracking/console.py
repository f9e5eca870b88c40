"""What the user sees: a progress bar on a terminal, plain lines in a log, a table at the end."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.box import ROUNDED
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.system.command import command_line, plural
from pipeline.system.text import printable, rate
from pipeline.tracking.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    RunEnded,
    RunStarted,
    StepReport,
    Warned,
)

LONGEST_COMMAND = 50
"""Characters of a command in the table of the result."""


class _Terminal(RichConsole):
    """A console that goes quiet when its pipe is closed; rich itself would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True, slots=True)
class _Pace:
    """Where and when this process started, to estimate the time left."""

    first_step: int
    last_step: int
    last_epoch: float
    started: float

    def seconds_left(self, step: int) -> float | None:
        done = step - self.first_step + 1
        if done <= 0:
            return None
        return (time.monotonic() - self.started) / done * (self.last_step - step)


class Console:
    """Shows the events on standard output; never raises and never ends the process."""

    def __init__(self, console: RichConsole | None = None) -> None:
        self._console = console or _Terminal(highlight=False)
        self._live: Live | None = None
        self._pace: _Pace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def on_event(self, event: Event) -> None:
        """Show `event`."""
        with suppress(OSError, ValueError):  # standard output is closed or full; it may recover
            self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._start(event)
            case StepReport():
                self._progress(event)
            case Evaluated():
                self._print(_evaluated(event), style="bold")
            case CheckpointSaved(step=step, seconds=seconds):
                self._print(f"step {step:,}  checkpoint saved in {seconds:.1f} s", style="dim")
            case Warned(message=message):
                self._print(f"warning: {message}", style="yellow")
            case RunEnded():
                self._end(event)

    def _start(self, event: RunStarted) -> None:
        self._pace = _Pace(event.first_step, event.last_step, event.last_epoch, time.monotonic())
        verb = "starts" if event.first_step <= 1 else f"continues at step {event.first_step:,}"
        self._print(
            f"{event.name} {verb}: {event.last_step:,} steps, {event.last_epoch:.4g} epochs, "
            f"{plural(event.world_size, 'rank')}\nRun folder: {_short(event.run_dir)}"
        )
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def _progress(self, event: StepReport) -> None:
        left = self._pace.seconds_left(event.step) if self._pace else None
        last_step = self._pace.last_step if self._pace else event.step
        numbers = _numbers(event, self._pace.last_epoch if self._pace else None)
        remaining = "" if left is None else f"{duration(left)} left"
        if self._live:
            self._live.update(_bar(event.step, last_step, numbers, remaining))
        else:
            counts = f"step {event.step:,}/{last_step:,}"
            self._print("  ".join(part for part in (counts, numbers, remaining) if part))

    def _end(self, event: RunEnded) -> None:
        self._stop()
        match event.status:
            case "finished":
                show_result(event.result, self._console)
            case "interrupted":
                how = event.message or "run the same command again to continue"
                self._print(f"Interrupted: {how}", style="yellow")
            case "failed":
                self._print(f"Failed: {event.message}", style="bold red")

    def _print(self, text: str, style: str = "") -> None:
        # In a log each event stays on one line, however long; a terminal wraps it.
        soft_wrap = not self._console.is_terminal
        self._console.print(Text(printable(text), style=style), soft_wrap=soft_wrap)

    def _stop(self) -> None:
        if self._live:
            live, self._live = self._live, None
            with suppress(OSError, ValueError):
                live.stop()


def show_result(result: dict[str, Any], console: RichConsole | None = None) -> None:
    """Print the result of a finished run (what result.json holds) as a table."""
    console = console or _Terminal(highlight=False)
    console.print()
    console.print(final_table(result), crop=False)


def final_table(result: dict[str, Any]) -> RenderableType:
    """Return the result of a finished run as a table that fits in 80 columns.

    A long command is below it on one line, so that it can be pasted.
    """
    table = Table(box=ROUNDED, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, key, show in _ROWS:
        if result.get(key) is not None:
            table.add_row(label, show(result[key]))
    if result.get("run_dir") and result.get("mlflow_run_id"):
        command = _dashboard(Path(result["run_dir"]).parent)
        if len(command) > LONGEST_COMMAND:
            return Group(table, Text(f"Dashboard: {command}", no_wrap=True, overflow="ignore"))
        table.add_row("Dashboard", command)
    return table


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss, preceded by days if there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hour}:{minute:02d}:{second:02d}"


def _short(folder: str) -> str:
    """Return the folder relative to the working directory if it is below it."""
    path, here = Path(folder), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else folder


def _percent(value: float) -> str:
    return f"{value:.2f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("Top-1 error", "top1_error_percent", _percent),
    ("Top-5 error", "top5_error_percent", _percent),
    ("Images evaluated", "images_evaluated", _count),
    ("Epochs", "epochs", lambda epochs: f"{epochs:.4g}"),
    ("Steps", "steps", _count),
    ("Parameters", "parameters", _count),
    ("Ranks", "world_size", _count),
    ("Images per second", "images_per_second", rate),
    ("Time", "seconds", duration),
    ("GPU-hours", "gpu_hours", rate),
    ("Cost", "cost", lambda cost: f"{cost:,.2f}"),
    ("Run folder", "run_dir", _short),
    ("MLflow run", "mlflow_run_id", str),
)


def _dashboard(runs_dir: Path) -> str:
    folder = _short(str(runs_dir))
    place = [] if folder == "runs" else ["--runs-dir", folder]
    return command_line("launch/dashboard.py", *place)


def _numbers(event: StepReport, last_epoch: float | None) -> str:
    of = f"/{last_epoch:.4g}" if last_epoch is not None else ""
    replaced = f"  {event.images_replaced:,} replaced" if event.images_replaced else ""
    return (
        f"epoch {event.epoch:.2f}{of}  loss {event.loss:.4f}  lr {event.lr:.4g}  "
        f"{rate(event.images_per_second)} img/s  "
        f"data wait {event.data_wait_percent:.1f} %{replaced}"
    )


def _evaluated(event: Evaluated) -> str:
    return (
        f"epoch {event.epoch:.2f}  top-1 error {event.top1_error_percent:.2f} %  "
        f"top-5 error {event.top5_error_percent:.2f} %  "
        f"({event.images:,} images, {event.seconds:.1f} s)"
    )


def _bar(step: int, last_step: int, numbers: str, remaining: str) -> Group:
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    share = 100 * step / max(1, last_step)
    bar = ProgressBar(total=max(1, last_step), completed=step)
    line.add_row(f"step {step:,}/{last_step:,}", bar, f"{share:.0f} %  {remaining}")
    return Group(line, Text(numbers, overflow="ellipsis", no_wrap=True))
