"""Run folders: a configuration for them, folders that were once locked, and their events."""

from pathlib import Path
from typing import Any

from pipeline.config.schema import Config, Cosine, Data, Sgd, Train, model_named
from pipeline.runs.folder import hold_run_folder
from pipeline.tracking import events
from pipeline.tracking.jsonl import METRICS, Jsonl


def config(runs_dir: Path, **changes: Any) -> Config:
    whole: dict[str, Any] = {
        "name": "test",
        "data": Data(dir=Path("somewhere")),
        "model": model_named("resnet50"),
        "train": Train(epochs=10, global_batch=64),
        "optim": Sgd(lr=0.1),
        "schedule": Cosine(),
        "runs_dir": runs_dir,
    }
    return Config(**whole | changes)


def hold_once(settings: Config) -> Path:
    with hold_run_folder(settings) as folder:
        return folder


def write_events(run_dir: Path, *written: events.Event) -> None:
    """Write events as a run does."""
    with Jsonl(run_dir / METRICS) as file:
        for event in written:
            file.on_event(event)


def run_started(run_dir: Path) -> events.RunStarted:
    return events.RunStarted("test", str(run_dir), 1, 1000, 10.0, 2, {}, {})


def progress(step: int) -> events.StepReport:
    return events.StepReport(step, step / 100, 2.5, 0.1, 1234.5, 1.0)
