"""What a run has told in its event file, summed up."""

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipeline.tracking.events import StepReport
from pipeline.tracking.jsonl import METRICS

PROGRESS = f'{{"event": "{StepReport.kind}"'.encode()
"""How nearly all lines begin; but the last one of them says it all."""
WARNINGS_KEPT = 5


@dataclass(slots=True)
class Metrics:
    """The newest event of each kind, as dicts; empty if there was none."""

    starts: int = 0
    """Processes that began, or resumed, the run."""
    started: dict[str, Any] = field(default_factory=dict[str, Any])
    progress: dict[str, Any] = field(default_factory=dict[str, Any])
    evaluated: dict[str, Any] = field(default_factory=dict[str, Any])
    ended: dict[str, Any] = field(default_factory=dict[str, Any])
    """How the last process ended; empty while it goes on, or if it could not say."""
    warnings: deque[dict[str, Any]] = field(
        default_factory=lambda: deque[dict[str, Any]](maxlen=WARNINGS_KEPT)
    )
    updated_at: float | None = None
    """When something was last told, in seconds as `time.time` gives them."""


def read_metrics(run_dir: Path) -> Metrics:
    """Read the event file of a run; lines that a kill left torn do not count."""
    told, path = Metrics(), run_dir / METRICS
    last_progress = b""
    try:
        told.updated_at = path.stat().st_mtime
        with path.open("rb") as file:
            for line in file:
                if line.startswith(PROGRESS):
                    last_progress = line if line.endswith(b"\n") else last_progress
                else:
                    _take(told, _parse(line))
    except OSError:
        return told
    told.progress = _parse(last_progress)
    return told


def _take(told: Metrics, event: dict[str, Any]) -> None:
    match event.get("event"):
        case "run_started":
            told.starts += 1
            told.started, told.ended = event, {}
        case "evaluated":
            told.evaluated = event
        case "run_ended":
            told.ended = event
        case "warned":
            told.warnings.append(event)
        case _:
            pass


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", record) if isinstance(record, dict) else {}
