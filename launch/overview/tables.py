"""Runs in tables, for people."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from launch.overview.details import Figures, RunDetails
from launch.overview.state import RunState
from launch.sweep.results import SweepResults
from pipeline.system.command import plural
from pipeline.system.text import printable, rate
from pipeline.tracking.console import duration

COLOURS = {
    "running": "green",
    "finished": "bold green",
    "pending": "yellow",
    "cancelling": "yellow",
    "failed": "bold red",
    "lost": "bold red",
}
WIDTH_OF_A_PIPE = 200
REASON_LENGTH = 60
NONE = "-"


def console() -> Console:
    """Return standard output; in a pipe, lines are not cut to the width of a terminal."""
    out = Console(highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = WIDTH_OF_A_PIPE
    return out


def runs_table(runs: Sequence[RunState]) -> Table:
    """Return a line for each run."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    for name in ("job", "state"):
        table.add_column(name)
    for name in (
        *("nodes", "epoch", "step", "top-1 error", "images/s", "time left", "checkpoint"),
        "restarts",
    ):
        table.add_column(name, justify="right")
    for each in runs:
        table.add_row(
            printable(each.name),
            each.job_id or NONE,
            state_text(each),
            _whole(each.nodes),
            epoch_text(each),
            step_text(each),
            _percent(each.top1_error_percent),
            _speed(each),
            each.time_left or NONE,
            checkpoint_text(each),
            str(each.restarts),
        )
    return table


def sweep_table(results: SweepResults) -> Table:
    """Return a line for each setting of a sweep."""
    title = f"{printable(results.sweep.name)}: final top-1 error over the seeds"
    left = plural(results.unfinished, "point is", "points are")
    caption = f"{left} unfinished" if results.unfinished else None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, caption=caption)
    table.add_column("setting", overflow="fold")
    for name in ("mean", "standard deviation", "n", "unfinished"):
        table.add_column(name, justify="right")
    for line in results.lines:
        settings = (f"{key}={value}" for key, value in line.settings.items())
        table.add_row(
            Text(printable(" ".join(settings) or "all")),
            _percent(line.mean_top1_error_percent),
            _percent(line.sample_standard_deviation),
            str(line.finished),
            str(line.unfinished),
        )
    return table


def details_text(details: RunDetails) -> RenderableType:
    """Return one run in detail: figures, attempts, warnings, and the end of a log."""
    parts: list[RenderableType] = [_figures(details)]
    if details.attempts:
        parts += [Text("\nAttempts", style="bold"), _attempts(details)]
    if details.warnings:
        parts.append(Text("\nLast warnings", style="bold"))
        parts += [Text(printable(f"{each.when}  {each.message}")) for each in details.warnings]
    if details.log is not None:
        parts.append(Text(printable(f"\n{details.log}"), style="bold"))
        parts.append(Text(printable(details.log_tail)))
    parts.append(Text("\nNext", style="bold"))
    # Not wrapped, so that it can be pasted.
    parts += [
        Text(printable(command), no_wrap=True, overflow="ignore")
        for command in details.next_commands
    ]
    return Group(*parts)


def state_text(run: RunState) -> Text:
    """Return the state in its colour, with the reason."""
    reason = printable(run.reason)
    if len(reason) > REASON_LENGTH:
        reason = f"{reason[:REASON_LENGTH]}..."
    text = Text(run.state, style=COLOURS.get(run.state, ""))
    return text.append(f" ({reason})", style="") if reason else text


def epoch_text(run: RunState) -> str:
    """Return the epoch out of all epochs."""
    if run.epoch is None:
        return NONE
    return f"{run.epoch:.2f}{_of(run.last_epoch, '.2f')}"


def step_text(run: RunState) -> str:
    """Return the step out of all steps."""
    if run.step is None:
        return NONE
    return f"{run.step:,}{_of(run.last_step, ',')}"


def checkpoint_text(run: RunState) -> str:
    """Return the age of the newest checkpoint."""
    if run.checkpoint_age_seconds is None:
        return NONE
    return f"{duration(run.checkpoint_age_seconds)} ago"


def _figures(details: RunDetails) -> Table:
    run = details.run
    table = Table(box=ROUNDED, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    saved = "none"
    if run.checkpoint_step is not None:
        saved = f"step {run.checkpoint_step:,}, {checkpoint_text(run)}"
    rows: list[tuple[str, str | Text]] = [
        ("Run", run.name),
        ("Configuration", details.configuration),
        ("State", state_text(run)),
        ("Job", run.job_id or "never queued"),
        ("Nodes", f"{_whole(run.nodes)} {details.node_list}".strip()),
        ("Ranks", _whole(details.world_size)),
        ("Epoch", epoch_text(run)),
        ("Step", step_text(run)),
        ("Top-1 error", _percent(run.top1_error_percent)),
        *_known(details.figures),
        ("Images per second", _speed(run)),
        ("Time left for the job", run.time_left or NONE),
        ("Last checkpoint", saved),
        ("Restarts", str(run.restarts)),
        *((name, str(path)) for name, path in details.paths.items()),
    ]
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else Text(printable(value)))
    return table


def _known(figures: Figures) -> list[tuple[str, str | Text]]:
    """Return the figures that are known, as they are shown."""
    shown: list[tuple[str, float | str | None, Callable[[Any], str]]] = [
        ("Top-5 error", figures.top5_error_percent, _percent),
        ("Time", figures.seconds, duration),
        ("GPU-hours", figures.gpu_hours, "{:,.2f}".format),
        ("Cost", figures.cost, "{:,.2f}".format),
        ("Dataset", figures.dataset, str),
        ("MLflow run", figures.mlflow_run_id, str),
    ]
    return [(name, show(value)) for name, value, show in shown if value is not None]


def _attempts(details: RunDetails) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("attempt", "ended", "step", "took", "node", "error"):
        table.add_column(name, overflow="fold")
    for outcome in details.attempts:
        table.add_row(
            outcome.token,
            outcome.kind,
            f"{outcome.step:,}",
            duration(outcome.seconds),
            outcome.node or NONE,
            printable(outcome.error) or NONE,
        )
    return table


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f} %"


def _speed(run: RunState) -> str:
    return NONE if run.images_per_second is None else rate(run.images_per_second)


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def _of(last: float | None, form: str) -> str:
    return "" if last is None else f"/{last:{form}}"
