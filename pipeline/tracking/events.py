"""What a run tells the world: one small frozen value for each thing that happens."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A process began, or resumed, the run; `first_step` is the first that it will train."""

    name: str
    run_dir: str
    first_step: int
    last_step: int
    last_epoch: float
    world_size: int
    params: dict[str, str | int | float | bool]
    """The resolved configuration, flattened to dotted keys."""
    tags: dict[str, str]
    """git_commit, config_hash, dataset_fingerprint and the like."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Training since the last report: the mean loss of those steps, and their speed."""

    step: int
    epoch: float
    loss: float
    lr: float
    images_per_second: float
    data_wait_percent: float
    """Share of the time that the training loop stood waiting for images."""
    images_replaced: int = 0
    """Corrupt images replaced so far (data.on_corrupt: skip)."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The validation images were counted, each exactly once."""

    step: int
    epoch: float
    top1_error_percent: float
    top5_error_percent: float
    loss: float
    images: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is whole and on disk."""

    step: int
    path: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something went wrong that does not stop the training."""

    message: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last word of a process: `result` is what result.json holds, if the run is finished."""

    status: Literal["finished", "failed", "interrupted"]
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict[str, Any])


Event = RunStarted | StepReport | Evaluated | CheckpointSaved | Warned | RunEnded


class Listener(Protocol):
    """Hears every event of the main rank, in order. It must not raise and must not block."""

    def on_event(self, event: Event) -> None: ...
