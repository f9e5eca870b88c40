"""The sections around the training: `evaluate`, `checkpoint` and `tracking`."""

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.schema.section import Count, Positive, at_most_one, section


@section
class Evaluate:
    """When, and in which batches, the validation images are counted."""

    every_epochs: Positive | None = None
    """Epochs between two evaluations (this or `every_steps`; by default 1 epoch)."""
    every_steps: Count | None = None
    batch_per_rank: Count = 256
    """Images a rank evaluates at a time; it never changes a result."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Evaluate":
        at_most_one(self, "every_epochs", "every_steps")
        return self


@section
class Checkpoint:
    """When the run is saved, and what is kept."""

    every_epochs: Positive | None = None
    """Epochs between two checkpoints (this or `every_steps`; by default 1 epoch)."""
    every_steps: Count | None = None
    keep_last: Count = 2
    keep_best: bool = True
    """Also keep the checkpoint with the lowest validation top-1 error."""
    keep_every_epochs: Positive | None = None
    """Also keep the first checkpoint at or after each multiple of so many epochs."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Checkpoint":
        at_most_one(self, "every_epochs", "every_steps")
        return self


@section
class Tracking:
    """Where MLflow shows the run. Training itself only writes a file and never waits for MLflow."""

    mlflow: bool = True
    """Ship the run's events to MLflow from a process of its own."""
    uri: str | None = None
    """Tracking server; by default $MLFLOW_TRACKING_URI, else an sqlite file beside the runs."""
    experiment: str = "imagenet-pipeline"
    group: Annotated[str, Field(pattern=r"^[\w.=,+-]+$", max_length=200)] | None = None
    """Show the run below a run of this name, with all others of the group, such as a sweep's."""
    drain_timeout_seconds: Annotated[float, Field(ge=0)] = 30.0
    """How long a finished run waits for MLflow; what is left is shipped in the background."""
