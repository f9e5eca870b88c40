"""The configuration tree: frozen, validated, with a docstring for each field.

A `Config` that exists is valid. Checks that need only the values are here; checks that need the
dataset, the ranks or the hardware are where those are known.
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
from pipeline.config.schema.training import (
    Cosine,
    Ema,
    Polynomial,
    Precision,
    Sgd,
    StepDecay,
    Train,
)

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
    "Precision",
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
    """The configuration of a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    """Name of the recipe; its runs are called NAME-ID, or NAME-VARIANT-ID."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the initial weights, the order of the images and how each is augmented."""
    data: Data
    """The images: where they are, and how they are cropped, ordered and loaded."""
    model: Model
    """Which network, and how it starts."""
    train: Train
    """How long to train, in which batches and in which precision."""
    optim: Sgd
    """Stochastic gradient descent with momentum."""
    schedule: Annotated[StepDecay | Cosine | Polynomial, Field(discriminator="name")]
    """The learning rate of each step: a warm-up, then a decay."""
    engine: Annotated[Ddp | DeepSpeed, Field(discriminator="name")] = field(default_factory=Ddp)
    """How ranks share gradients and optimiser state."""
    evaluate: Evaluate = field(default_factory=Evaluate)
    """When validation images are evaluated, and in which batches."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    """When checkpoints are saved, and which are kept."""
    tracking: Tracking = field(default_factory=Tracking)
    """How MLflow shows the run."""
    launch: Launch = field(default_factory=Launch)
    """Checks and reports before the first step."""
    slurm: Slurm = field(default_factory=Slurm)
    """What a job requests from SLURM, and how often a run is restarted."""
    env: Environment = field(default_factory=dict[str, str])
    """Environment variables of each rank. Numbers are kept as written, and `null` removes a
    variable from this list. Passwords and keys are refused, since the configuration is saved with
    the run: export them where you start it."""
    variant: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,+-]*$", max_length=80)] | None
    ) = None
    """What the command line changed in the recipe, in short, such as `resnet18_lr=0.2`. By default
    each override that decides the result, unless one of them is `name`."""
    runs_dir: Path = Path("runs")
    """Folder that holds the run folders."""
    run_dir: Path | None = None
    """Folder of this run. By default the unfinished run in `runs_dir` whose configuration gives the
    same result is resumed, or else a new folder is made."""

    @property
    def title(self) -> str:
        """The name of its runs, without their id."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @field_validator("engine")
    @classmethod
    def _overlaps(cls, engine: Ddp | DeepSpeed, info: ValidationInfo) -> Ddp | DeepSpeed:
        train = info.data.get("train")
        match engine:
            case DeepSpeed(zero_stage=2, overlap=True) if train and train.accumulation > 1:
                raise ValueError(
                    "overlap does not work with train.accumulation over 1 at zero_stage 2, which"
                    " reduces gradients once, after the last micro batch; set overlap=false,"
                    " train.accumulation=1 or zero_stage=1"
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
                f"data.order.lanes={order.lanes} must divide train.global_batch={batch};"
                f" choose other lanes, or a global batch of {tries}"
            )
        return self
