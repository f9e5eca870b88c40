"""The contents of result.json: the figures of a finished run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of a finished run, in the order of result.json."""

    name: str
    top1_error_percent: float
    """From the last evaluation, like the next three."""
    top5_error_percent: float
    validation_loss: float | None
    """None if it is not finite."""
    images_evaluated: int
    best_top1_error_percent: float | None
    steps: int
    epochs: float
    images_per_second: float
    """Over all training steps, without evaluations and saves."""
    seconds: float
    parameters: int
    classes: int
    world_size: int
    device: str
    dataset_fingerprint: str
    run_dir: str
    mlflow_run_id: str | None
