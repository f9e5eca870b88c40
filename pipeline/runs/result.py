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
    gpu_hours: float | None = None
    """Of all attempts, from each one's start to its last report; None without GPUs."""
    cost: float | None = None
    """`gpu_hours` at `launch.price_per_gpu_hour`; None without a price."""


def cost_of(gpu_hours: float | None, price: float | None) -> float | None:
    """Return what `gpu_hours` cost at a price for each; None if one of them is unknown."""
    return None if gpu_hours is None or price is None else gpu_hours * price
