"""What a run reports: one small frozen value for each thing that happens.

`kind` is the name of an event in metrics.jsonl.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A process started or resumed the run; `first_step` is the first step that it will train."""

    kind: ClassVar[str] = "run_started"
    name: str
    run_dir: str
    first_step: int
    last_step: int
    last_epoch: float
    world_size: int
    params: dict[str, str | int | float | bool]
    """The resolved configuration, flattened to dotted keys."""
    tags: dict[str, str]
    """git_commit, config_hash, dataset_fingerprint and others."""
    gpus: int = 0
    """How many the ranks have."""
    setup_seconds: float = 0.0
    """Since the process started, which already occupied them."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Training since the last report: the mean loss of those steps, and their speed."""

    kind: ClassVar[str] = "progress"
    step: int
    epoch: float
    loss: float
    lr: float
    images_per_second: float
    data_wait_percent: float
    """Share of the time in which the training loop waited for images."""
    images_replaced: int = 0
    """Corrupt images replaced so far (data.on_corrupt: skip)."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """All validation images were evaluated, each exactly once."""

    kind: ClassVar[str] = "evaluated"
    step: int
    epoch: float
    top1_error_percent: float
    top5_error_percent: float
    loss: float
    images: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is complete and on disk."""

    kind: ClassVar[str] = "checkpoint_saved"
    step: int
    path: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something went wrong that does not stop the training."""

    kind: ClassVar[str] = "warned"
    message: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A process ended; `result` is the content of result.json if the run is finished."""

    kind: ClassVar[str] = "run_ended"
    status: Literal["finished", "failed", "interrupted"]
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict[str, Any])


Event = RunStarted | StepReport | Evaluated | CheckpointSaved | Warned | RunEnded


class Listener(Protocol):
    """Gets every event of the main rank, in order. It must not raise and must not block."""

    def on_event(self, event: Event) -> None: ...
