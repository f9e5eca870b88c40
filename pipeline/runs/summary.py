"""What a run has reported: its event file summed up, and the ends of its logs."""

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipeline.system.secrets import hide_secrets
from pipeline.tracking.events import RunStarted, StepReport
from pipeline.tracking.jsonl import METRICS

PROGRESS = f'{{"event": "{StepReport.kind}"'.encode()
"""The start of nearly all lines; only the last such line is parsed."""
WHOLE = b"}\n"
"""The end of a complete line; a process that was killed leaves others, which the next one ends."""
WARNINGS_KEPT = 5
TAIL_BYTES = 64_000


@dataclass(slots=True)
class Metrics:
    """The newest event of each kind, as dicts; empty before the first one."""

    starts: int = 0
    """How many processes started or resumed the run."""
    started: dict[str, Any] = field(default_factory=dict[str, Any])
    progress: dict[str, Any] = field(default_factory=dict[str, Any])
    evaluated: dict[str, Any] = field(default_factory=dict[str, Any])
    ended: dict[str, Any] = field(default_factory=dict[str, Any])
    """How the last process ended; empty while it runs, or if it was killed."""
    warnings: deque[dict[str, Any]] = field(
        default_factory=lambda: deque[dict[str, Any]](maxlen=WARNINGS_KEPT)
    )
    updated_at: float | None = None
    """Unix time in seconds of the last report."""
    gpu_seconds: float = 0.0
    """The GPUs of each process times its seconds until its last report, over all attempts."""

    @property
    def gpu_hours(self) -> float | None:
        """None for a run without GPUs."""
        return self.gpu_seconds / 3600 or None


def read_metrics(run_dir: Path) -> Metrics:
    """Return the events of a run; incomplete lines are left out."""
    metrics, path = Metrics(), run_dir / METRICS
    last_progress = last = b""
    try:
        metrics.updated_at = path.stat().st_mtime
        with path.open("rb") as file:
            for line in file:
                if line.startswith(PROGRESS) and line.endswith(WHOLE):
                    last_progress = last = line
                elif event := _parse(line):
                    if event.get("event") == RunStarted.kind:
                        _count_gpus(metrics, _parse(last))
                    _add(metrics, event)
                    last = line
    except OSError:
        return metrics
    metrics.progress = _parse(last_progress)
    _count_gpus(metrics, _parse(last))
    return metrics


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log, without passwords; empty if it cannot be read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return hide_secrets("\n".join(text.splitlines()[-lines:]))


def _count_gpus(metrics: Metrics, last: dict[str, Any]) -> None:
    """Add the GPU time of an attempt whose last event is `last`."""
    begun = metrics.started
    if gpus := begun.get("gpus"):
        seconds = last["time"] - begun["time"] + begun.get("setup_seconds", 0.0)
        metrics.gpu_seconds += gpus * seconds


def _add(metrics: Metrics, event: dict[str, Any]) -> None:
    match event.get("event"):
        case "run_started":
            metrics.starts += 1
            metrics.started, metrics.ended = event, {}
        case "evaluated":
            metrics.evaluated = event
        case "run_ended":
            metrics.ended = event
        case "warned":
            metrics.warnings.append(event)
        case _:
            pass


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return {}
    event = cast("dict[str, Any]", record) if isinstance(record, dict) else {}
    return {
        key: hide_secrets(each) if isinstance(each, str) else each for key, each in event.items()
    }
