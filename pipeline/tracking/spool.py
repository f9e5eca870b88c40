"""What MLflow is to be told of a run's event file, and how far it has been told.

What is shipped is a function of the file alone, so shipping any part of it again changes nothing.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from pipeline.tracking.jsonl import METRICS, read_events, read_lines

STATE = "mlflow.json"
TEXT_CHARACTERS = 5000
"""MLflow cuts longer tags and parameters itself, at a length that depends on its release."""

GROUP = "tracking.group"
"""The setting by which runs are shown below one that stands for all of them."""

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
    """A setting of the run; MLflow refuses to change it."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A remark on the run; the last one with a key stands."""

    key: str
    value: str


Item = MetricPoint | Param | Tag


@dataclass(frozen=True, slots=True)
class Shipped:
    """How far a run's file has been shipped, and where to; lies in the run's folder."""

    uri: str
    experiment: str
    run_key: str
    """The tag by which the run is found again if this file was lost."""
    experiment_id: str = ""
    run_id: str = ""
    offset: int = 0
    """Bytes of the event file that MLflow has."""
    train_step: int = -1
    val_step: int = -1
    """The last steps shipped; steps trained again after a resume are not drawn twice."""
    last_time: float = 0.0
    ended: bool = False
    """The last word shipped is that of a process that ended."""
    abandoned: bool = False
    """MLflow was told that the process was killed, since it left no last word."""

    def save(self, run_dir: Path) -> None:
        """Write the state; a reader sees the old one or the new one, whole."""
        partial = run_dir / f".{STATE}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(run_dir / STATE)

    @staticmethod
    def load(run_dir: Path) -> "Shipped | None":
        """The state in the run's folder, or None if there is none that can be read."""
        try:
            return Shipped(**json.loads((run_dir / STATE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def anew(self) -> "Shipped":
        """The state of a run that has nothing in MLflow (any more): all is to be shipped."""
        return Shipped(self.uri, self.experiment, self.run_key)

    def after(self, event: dict[str, Any]) -> "Shipped":
        """The state once `event` is shipped."""
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
    """A name for the run that stays when its folder moves: the time of its first event."""
    for event in read_events(run_dir / METRICS):
        return f"{run_dir.name}@{event['time']:.6f}"
    raise FileNotFoundError(f"{run_dir / METRICS} holds no event yet")


def group_of(event: dict[str, Any]) -> str | None:
    """The group that a run belongs to, as the event of its start tells; None if to none."""
    params = event.get("params")
    group = cast("dict[str, object]", params).get(GROUP) if isinstance(params, dict) else None
    if not isinstance(group, str) or group == "null":
        return None
    return group if re.fullmatch(r"[\w.=,+-]+", group) else None


def unshipped_bytes(run_dir: Path, offset: int) -> int:
    """Bytes of the run's event file after `offset`."""
    try:
        return (run_dir / METRICS).stat().st_size - offset
    except OSError:
        return 0


def next_events(run_dir: Path, offset: int, most: int) -> tuple[list[dict[str, Any]], int]:
    """Up to `most` events after byte `offset`, and where they end; torn lines are passed over.

    A start or an end of a process comes alone, since MLflow hears of it in another way.
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
    """What MLflow is to be told of `event`, given what is `shipped`.

    Raises LookupError, ValueError or TypeError for an event that the trainer does not write.
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
        case kind:  # a kind that a later release adds is passed over
            remarks = {"checkpoint_saved": "path", "warned": "message"}
            return [Tag(str(kind), text(event[remarks[kind]]))] if kind in remarks else []


def without_password(text: str) -> str:
    """`text`, an address or with addresses in it, as it may be shown and kept."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)


def text(value: object) -> str:
    """`value` as text that every database stores and everybody may read."""
    plain = str(value).replace("\0", "").encode("utf-8", "replace").decode()
    return without_password(plain)[:TEXT_CHARACTERS]


def milliseconds(event: dict[str, Any]) -> int:
    """The time of `event` in milliseconds since 1970, as MLflow counts."""
    return int(float(event["time"]) * 1000)


def _points(event: dict[str, Any], fields: dict[str, str]) -> list[Item]:
    step, timestamp = int(event["step"]), milliseconds(event)
    if not 0 <= step < 2**63:
        raise ValueError(f"step={step} is not a 64-bit count")
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
    found: list[Item] = [Param(str(key), text(value)) for key, value in params.items()]
    found += [Tag(str(key), text(value)) for key, value in tags.items()]
    found += [Tag(_TAGS[key], text(value)) for key, value in tags.items() if key in _TAGS]
    found += [
        Tag("world_size", text(event["world_size"])),
        Tag("first_step", text(event["first_step"])),
        Tag("run_dir", text(event["run_dir"])),
        Tag("mlflow.source.name", text(tags.get("command", "pipeline.train"))),
        Tag("mlflow.source.type", "LOCAL"),
        Tag("mlflow.note.content", f"Run folder: `{text(event['run_dir'])}`"),
    ]
    return found


def _end(event: dict[str, Any]) -> list[Item]:
    result = cast("dict[str, Any]", event.get("result") or {})
    found: list[Item] = [Tag("end", text(event["status"]))]
    if event.get("message"):
        found.append(Tag("end_message", text(event["message"])))
    if "top1_error_percent" in result:
        found.append(Tag("mlflow.note.content", _note(result)))
    return found


def _note(result: dict[str, Any]) -> str:
    rows = [f"| {key.replace('_', ' ')} | {_number(value)} |" for key, value in result.items()]
    return text("\n".join(["| result | |", "|---|---|", *rows]))


def _number(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"
