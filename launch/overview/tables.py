"""Runs in tables, for people."""

from collections.abc import Sequence

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from launch.overview.details import Details
from launch.overview.state import Standing
from launch.sweep.summary import Summary
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
    """Return standard output; what goes into a pipe is not cut to a terminal's width."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=WIDTH_OF_A_PIPE)


def runs_table(standings: Sequence[Standing]) -> Table:
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
    for each in standings:
        table.add_row(
            each.name,
            each.job_id or NONE,
            state_text(each),
            _whole(each.nodes),
            epoch_text(each),
            step_text(each),
            _percent(each.top1_error_percent),
            NONE if each.images_per_second is None else f"{each.images_per_second:,.0f}",
            each.time_left or NONE,
            checkpoint_text(each),
            str(each.restarts),
        )
    return table


def sweep_table(summary: Summary) -> Table:
    """Return a line for each setting of a sweep, and what is still to come."""
    title = f"{summary.sweep.name}: final top-1 error over the seeds"
    caption = f"{summary.unfinished} points are unfinished" if summary.unfinished else None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, caption=caption)
    table.add_column("setting", overflow="fold")
    for name in ("mean", "standard deviation", "n", "unfinished"):
        table.add_column(name, justify="right")
    for line in summary.lines:
        settings = (f"{key}={value}" for key, value in line.settings.items())
        table.add_row(
            Text(" ".join(settings) or "all"),
            _percent(line.mean_top1_error_percent),
            _percent(line.sample_standard_deviation),
            str(line.finished),
            str(line.unfinished),
        )
    return table


def details_text(shown: Details) -> RenderableType:
    """Return all about one run: figures, attempts, warnings, and the end of a log."""
    parts: list[RenderableType] = [_figures(shown)]
    if shown.attempts:
        parts += [Text("\nAttempts", style="bold"), _attempts(shown)]
    if shown.warnings:
        parts.append(Text("\nLast warnings", style="bold"))
        parts += [Text(f"{each.when}  {each.message}") for each in shown.warnings]
    if shown.log is not None:
        parts += [Text(f"\n{shown.log}", style="bold"), Text(shown.log_tail)]
    parts.append(Text("\nNext", style="bold"))
    parts += [Text(command) for command in shown.next_commands]
    return Group(*parts)


def state_text(standing: Standing) -> Text:
    """Return the state in its colour, with the reason behind it."""
    reason = standing.reason
    if len(reason) > REASON_LENGTH:
        reason = f"{reason[:REASON_LENGTH]}..."
    text = Text(standing.state, style=COLOURS.get(standing.state, ""))
    return text.append(f" ({reason})", style="") if reason else text


def epoch_text(standing: Standing) -> str:
    """Return the epoch, and how many there will be."""
    if standing.epoch is None:
        return NONE
    return f"{standing.epoch:.2f}{_of(standing.last_epoch, '.2f')}"


def step_text(standing: Standing) -> str:
    """Return the step, and how many there will be."""
    if standing.step is None:
        return NONE
    return f"{standing.step:,}{_of(standing.last_step, ',')}"


def checkpoint_text(standing: Standing) -> str:
    """Return how long ago the newest checkpoint was saved."""
    if standing.checkpoint_age_seconds is None:
        return NONE
    return f"{duration(standing.checkpoint_age_seconds)} ago"


def _figures(shown: Details) -> Table:
    standing = shown.standing
    table = Table(box=ROUNDED, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    saved = "none"
    if standing.checkpoint_step is not None:
        saved = f"step {standing.checkpoint_step:,}, {checkpoint_text(standing)}"
    rows: list[tuple[str, str | Text]] = [
        ("Run", standing.name),
        ("Configuration", shown.configuration),
        ("State", state_text(standing)),
        ("Job", standing.job_id or "none: not queued"),
        ("Nodes", f"{_whole(standing.nodes)} {shown.node_list}".strip()),
        ("Ranks", _whole(shown.world_size)),
        ("Epoch", epoch_text(standing)),
        ("Step", step_text(standing)),
        ("Top-1 error", _percent(standing.top1_error_percent)),
        ("Images per second", _whole(standing.images_per_second)),
        ("Time left of the job", standing.time_left or NONE),
        ("Last checkpoint", saved),
        ("Restarts", str(standing.restarts)),
        *((name, str(path)) for name, path in shown.paths.items()),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _attempts(shown: Details) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("attempt", "ended", "step", "took", "node", "error"):
        table.add_column(name, overflow="fold")
    for outcome in shown.attempts:
        table.add_row(
            outcome.token,
            outcome.ending,
            f"{outcome.step:,}",
            duration(outcome.seconds),
            outcome.node or NONE,
            outcome.error or NONE,
        )
    return table


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f} %"


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def _of(last: float | None, form: str) -> str:
    return "" if last is None else f"/{last:{form}}"
