"""What MLflow should receive from a run's event file, and how much of it was shipped.

What to ship is a function of the file alone, so shipping any part again changes nothing.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from pipeline.system.durable import write_whole
from pipeline.system.secrets import hide_secret
from pipeline.tracking.jsonl import METRICS, read_events, read_lines
from pipeline.tracking.store_uri import public_uri, without_password

STATE = "mlflow.json"
TEXT_CHARACTERS = 5000
"""MLflow truncates longer tags and parameters at a length that depends on its version."""

GROUP = "tracking.group"
"""The setting that groups runs in MLflow below a common parent run."""

_TRAIN = {
    "train/loss": "loss",
    "train/lr": "lr",
    "train/images_per_second": "images_per_second",
    "train/data_wait_percent": "data_wait_percent",
    "epoch": "epoch",
}
_VAL = {
    "val/top1_error": "top1_error_percent",
    "val/top5_error": "top5_error_percent",
    "val/loss": "loss",
}
_TAGS = {"git_commit": "mlflow.source.git.commit", "git_branch": "mlflow.source.git.branch"}


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of one curve."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True, slots=True)
class Param:
    """A setting of the run; MLflow does not allow changing it."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A note on the run; a later one with the same key replaces it."""

    key: str
    value: str


Item = MetricPoint | Param | Tag


@dataclass(frozen=True, slots=True)
class Shipped:
    """How much of a run's file was shipped, and to which store; kept in the run folder."""

    uri: str
    experiment: str
    run_key: str
    """The tag that identifies the run in MLflow if this file was lost."""
    experiment_id: str = ""
    run_id: str = ""
    offset: int = 0
    """Bytes of the event file that MLflow has received."""
    train_step: int = -1
    val_step: int = -1
    """The last steps shipped; steps repeated after a resume are not sent twice."""
    last_time: float = 0.0
    ended: bool = False
    """The last process shipped its RunEnded event."""
    abandoned: bool = False
    """The run was marked as killed in MLflow, since its process left no RunEnded event."""

    def save(self, run_dir: Path) -> None:
        """Replace the state in the run folder."""
        write_whole(run_dir / STATE, json.dumps(asdict(self), indent=2).encode() + b"\n")

    @staticmethod
    def load(run_dir: Path) -> "Shipped | None":
        """Return the state in the run folder, or None if it is missing or damaged."""
        try:
            state = Shipped(**json.loads((run_dir / STATE).read_text()))
            return replace(state, uri=public_uri(state.uri))  # earlier versions kept the user
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def restarted(self) -> "Shipped":
        """Return the state of a run of which MLflow has nothing: everything must be shipped."""
        return Shipped(self.uri, self.experiment, self.run_key)

    def after(self, event: dict[str, Any]) -> "Shipped":
        """Return the state after `event` was shipped."""
        state = replace(self, last_time=float(event["time"]))
        match event["event"]:
            case "run_started":
                return replace(state, ended=False)
            case "run_ended":
                return replace(state, ended=True)
            case "progress":
                return replace(state, train_step=max(self.train_step, int(event["step"])))
            case "evaluated":
                return replace(state, val_step=max(self.val_step, int(event["step"])))
            case _:
                return state


def run_key(run_dir: Path) -> str:
    """Return a name of the run that does not change later: folder and time of the first event."""
    for event in read_events(run_dir / METRICS):
        return f"{run_dir.name}@{event['time']:.6f}"
    raise FileNotFoundError(f"{run_dir / METRICS} has no event yet")


def group_of(event: dict[str, Any]) -> str | None:
    """Return the run's group from its RunStarted event; None if it has none."""
    params = event.get("params")
    group = cast("dict[str, object]", params).get(GROUP) if isinstance(params, dict) else None
    if not isinstance(group, str) or group == "null":
        return None
    return group if re.fullmatch(r"[\w.=,+-]+", group) else None


def unshipped_bytes(run_dir: Path, offset: int) -> int:
    """Return the number of bytes of the run's event file after `offset`."""
    try:
        return (run_dir / METRICS).stat().st_size - offset
    except OSError:
        return 0


def next_events(run_dir: Path, offset: int, most: int) -> tuple[list[dict[str, Any]], int]:
    """Return at most `most` events after byte `offset`, and their end; skip incomplete lines.

    The start or end of a process comes alone, because MLflow needs other requests for it.
    """
    path, found = run_dir / METRICS, list[dict[str, Any]]()
    if not path.exists():
        return [], offset
    for event, end in read_lines(path, offset):
        if event is not None:
            alone = event["event"] in ("run_started", "run_ended")
            if alone and found:
                break
            found.append(event)
            if alone or len(found) >= most:
                return found, end
        offset = end
    return found, offset


def items(event: dict[str, Any], shipped: Shipped) -> list[Item]:
    """Return what MLflow should receive for `event`, given what was `shipped`.

    Raises LookupError, ValueError or TypeError if the trainer cannot have written the event.
    """
    match event["event"]:
        case "progress":
            return _points(event, _TRAIN) if int(event["step"]) > shipped.train_step else []
        case "evaluated":
            return _points(event, _VAL) if int(event["step"]) > shipped.val_step else []
        case "run_started":
            return _start(event)
        case "run_ended":
            return _end(event)
        case kind:  # kinds of later versions are ignored
            notes = {"checkpoint_saved": "path", "warned": "message"}
            return [Tag(str(kind), clean_text(event[notes[kind]]))] if kind in notes else []


def clean_text(value: object) -> str:
    """Return `value` as text that every database can store, without passwords."""
    plain = str(value).replace("\0", "").encode("utf-8", "replace").decode()
    return without_password(plain)[:TEXT_CHARACTERS]


def milliseconds(event: dict[str, Any]) -> int:
    """Return the time of `event` in milliseconds since 1970, as MLflow expects."""
    return int(float(event["time"]) * 1000)


def _points(event: dict[str, Any], fields: dict[str, str]) -> list[Item]:
    step, timestamp = int(event["step"]), milliseconds(event)
    if not 0 <= step < 2**63:
        raise ValueError(f"step={step} must be from 0 to 2**63 - 1")
    points: list[Item] = [
        MetricPoint(key, float(event[name]), timestamp, step) for key, name in fields.items()
    ]
    if event.get("images_replaced"):
        points.append(
            MetricPoint("train/images_replaced", float(event["images_replaced"]), timestamp, step)
        )
    return points


def _start(event: dict[str, Any]) -> list[Item]:
    params = cast("dict[str, object]", event["params"])
    tags = cast("dict[str, object]", event["tags"])
    found: list[Item] = [
        Param(str(key), clean_text(hide_secret(str(key), str(value))))
        for key, value in params.items()
    ]
    found += [Tag(str(key), clean_text(value)) for key, value in tags.items()]
    known = {key: value for key, value in tags.items() if key in _TAGS and value != "unknown"}
    found += [Tag(_TAGS[key], clean_text(value)) for key, value in known.items()]
    found += [
        Tag("world_size", clean_text(event["world_size"])),
        Tag("first_step", clean_text(event["first_step"])),
        Tag("run_dir", clean_text(event["run_dir"])),
        Tag("mlflow.source.name", clean_text(tags.get("command", "pipeline.train"))),
        Tag("mlflow.source.type", "LOCAL"),
        Tag("mlflow.note.content", f"Run folder: `{clean_text(event['run_dir'])}`"),
    ]
    return found


def _end(event: dict[str, Any]) -> list[Item]:
    result = cast("dict[str, Any]", event.get("result") or {})
    found: list[Item] = [Tag("end", clean_text(event["status"]))]
    if event.get("message"):
        found.append(Tag("end_message", clean_text(event["message"])))
    if "top1_error_percent" in result:
        found.append(Tag("mlflow.note.content", _note(result)))
    return found


def _note(result: dict[str, Any]) -> str:
    rows = [f"| {key.replace('_', ' ')} | {_number(value)} |" for key, value in result.items()]
    return clean_text("\n".join(["| result | |", "|---|---|", *rows]))


def _number(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"
