"""A configuration for run folders, and folders that were held once."""

from pathlib import Path
from typing import Any

from pipeline.config.schema import Config, Cosine, Data, Sgd, Train, model_named
from pipeline.runs.folder import hold_run_folder


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
