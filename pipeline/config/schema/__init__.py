"""The configuration tree: frozen, validated, and documented field by field.

A `Config` that exists is valid. Whatever can be known from the values alone is checked here; what
needs the dataset, the world or the hardware is checked where those are known.
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config.schema.data import (
    Dali,
    Data,
    PadCrop,
    RandomResizedCrop,
    ResizeCenterCrop,
    Shuffled,
    Synthetic,
    Windowed,
)
from pipeline.config.schema.engine import Compression, Ddp, DeepSpeed
from pipeline.config.schema.launch import Environment, Launch
from pipeline.config.schema.model import (
    CifarPlain,
    CifarResNet,
    Model,
    PreactResNet,
    ResNet,
    model_named,
)
from pipeline.config.schema.running import Checkpoint, Evaluate, Tracking
from pipeline.config.schema.section import section
from pipeline.config.schema.slurm import Container, Slurm
from pipeline.config.schema.training import Cosine, Ema, Polynomial, Sgd, StepDecay, Train

__all__ = [
    "Checkpoint",
    "CifarPlain",
    "CifarResNet",
    "Compression",
    "Config",
    "Container",
    "Cosine",
    "Dali",
    "Data",
    "Ddp",
    "DeepSpeed",
    "Ema",
    "Environment",
    "Evaluate",
    "Launch",
    "Model",
    "PadCrop",
    "Polynomial",
    "PreactResNet",
    "RandomResizedCrop",
    "ResNet",
    "ResizeCenterCrop",
    "Sgd",
    "Shuffled",
    "Slurm",
    "StepDecay",
    "Synthetic",
    "Tracking",
    "Train",
    "Windowed",
    "model_named",
]


@section
class Config:
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    """Name of the recipe; its runs are called NAME-ID."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the initial weights, the order of the images and how each is augmented."""
    data: Data
    model: Model
    """Which network, and how it starts."""
    train: Train
    optim: Sgd
    schedule: Annotated[StepDecay | Cosine | Polynomial, Field(discriminator="name")]
    engine: Annotated[Ddp | DeepSpeed, Field(discriminator="name")] = field(default_factory=Ddp)
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tracking: Tracking = field(default_factory=Tracking)
    launch: Launch = field(default_factory=Launch)
    slurm: Slurm = field(default_factory=Slurm)
    env: Environment = field(default_factory=dict[str, str])
    """Environment variables of every rank. Numbers are taken as they are written, and null takes a
    variable out of this list. They are saved and shown with the run: no place for passwords."""
    runs_dir: Path = Path("runs")
    """Folder that holds the runs."""
    run_dir: Path | None = None
    """This run's own folder. By default an unfinished run under `runs_dir` whose configuration
    gives the same result is continued, and else a new folder is made."""

    @field_validator("engine")
    @classmethod
    def _overlaps(cls, engine: Ddp | DeepSpeed, info: ValidationInfo) -> Ddp | DeepSpeed:
        train = info.data.get("train")
        match engine:
            case DeepSpeed(zero_stage=2, overlap=True) if train and train.accumulation > 1:
                raise ValueError(
                    "overlap does not go with train.accumulation over 1 at zero_stage 2: gradients"
                    " are shared out once, after the last micro batch; set one of the three lower"
                )
            case _:
                return engine

    @model_validator(mode="after")
    def _lanes_divide_the_batch(self) -> "Config":
        order, batch = self.data.order, self.train.global_batch
        if isinstance(order, Windowed) and batch % order.lanes:
            down = batch - batch % order.lanes
            tries = " or ".join(str(n) for n in (down, down + order.lanes) if n)
            raise ValueError(
                f"data.order.lanes={order.lanes} does not divide train.global_batch={batch};"
                f" choose lanes that do, or a global batch of {tries}"
            )
        return self
