"""The sections `evaluate`, `checkpoint` and `tracking`: what happens beside the training."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.schema.section import Count, Line, Positive, at_most_one, section
from pipeline.config.schema.store import usable_store


@section
class Evaluate:
    """When validation images are evaluated, and in which batches."""

    every_epochs: Positive | None = None
    """Epochs between evaluations (this or `every_steps`). By default 1."""
    every_steps: Count | None = None
    """Steps between evaluations (this or `every_epochs`)."""
    batch_per_rank: Count = 256
    """Images that each rank evaluates at a time. It does not change results."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Evaluate":
        at_most_one(self, "every_epochs", "every_steps")
        return self


@section
class Checkpoint:
    """When checkpoints are saved, and which are kept."""

    every_epochs: Positive | None = None
    """Epochs between checkpoints (this or `every_steps`). By default 1."""
    every_steps: Count | None = None
    """Steps between checkpoints (this or `every_epochs`)."""
    keep_last: Count = 2
    """How many of the newest checkpoints are kept."""
    keep_best: bool = True
    """Also keep the checkpoint with the lowest validation top-1 error."""
    keep_every_epochs: Positive | None = None
    """Also keep the first checkpoint at or after each multiple of this many epochs."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Checkpoint":
        at_most_one(self, "every_epochs", "every_steps")
        return self


@section
class Tracking:
    """How MLflow shows the run. Training itself only writes a file and never waits for MLflow."""

    mlflow: bool = True
    """Send the run to MLflow, from a separate process."""
    uri: Annotated[Line, AfterValidator(usable_store)] | None = None
    """Address of the MLflow server or database, without a password. By default
    $MLFLOW_TRACKING_URI, else the SQLite file mlflow.db beside `runs_dir`."""
    experiment: str = "imagenet-pipeline"
    """The experiment in MLflow that the run belongs to."""
    group: Annotated[str, Field(pattern=r"^[\w.=,+-]+$", max_length=200)] | None = None
    """Name of a parent run in MLflow. Runs with the same group, such as those of a sweep, are shown
    below it."""
    drain_timeout_seconds: Annotated[float, Field(ge=0)] = 30.0
    """How long a finished run waits for MLflow, in seconds. The rest is sent in the background."""
