"""The configuration tree: frozen, validated, and documented field by field.

A `Config` that exists is valid. Whatever can be known from the values alone is checked here; what
needs the dataset, the world or the hardware is checked where those are known.
"""

from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast, dataclass_transform

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from pipeline.config.architecture import Architecture

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, Field))
def firm(cls: type[T]) -> type[T]:
    """A frozen dataclass that refuses unknown keys and takes its fields' docstrings as help."""
    rules = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    decorate = cast(
        "Callable[[type[T]], type[T]]", dataclass(frozen=True, kw_only=True, config=rules)
    )
    return decorate(cls)


Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(gt=0, le=4096)]
Channels = tuple[float, float, float]


def exactly_one(owner: object, *names: str) -> None:
    """Raise `ValueError` unless just one of the named fields of `owner` is set."""
    given = [name for name in names if getattr(owner, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"give exactly one of {' or '.join(names)} (found {found})")


def at_most_one(owner: object, *names: str) -> None:
    """Raise `ValueError` if more than one of the named fields of `owner` is set."""
    given = [name for name in names if getattr(owner, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give {' or '.join(names)}, not both")


def _all_positive(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("every value must be greater than 0")
    return values


# ---------------------------------------------------------------------------------------- data


@firm
class RandomResizedCrop:
    """A random window of random area and aspect, resized to a square (Inception style)."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    size: Pixels = 224
    """Side of the square that the network sees, in pixels."""
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    """Range of the window's area, as a share of the image's."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Range of the window's aspect, width over height."""
    flip: bool = True
    """Mirror left to right with probability one half."""

    @model_validator(mode="after")
    def _ordered(self) -> "RandomResizedCrop":
        if self.scale[0] > self.scale[1] or self.scale[1] > 1:
            raise ValueError("scale must be [least, most] with least <= most <= 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio must be [least, most] with least <= most")
        return self


@firm
class PadCrop:
    """A random square out of the image padded with the mean colour (He et al. 2015, sec. 4.2)."""

    name: Literal["pad_crop"] = "pad_crop"
    size: Pixels = 32
    """Side of the square, in pixels."""
    pad: Annotated[int, Field(ge=0, le=1024)] = 4
    """Pixels added on each side."""
    flip: bool = True
    """Mirror left to right with probability one half."""


@firm
class ResizeCenterCrop:
    """The shorter side to `resize`, then the central square of `size`: torchvision's, exactly."""

    resize: Pixels = 256
    """Length of the shorter side after resizing, in pixels."""
    size: Pixels = 224
    """Side of the central square, in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _fits(self) -> "ResizeCenterCrop":
        if self.size > self.resize:
            raise ValueError(f"size={self.size} must not exceed resize={self.resize}")
        return self


@firm
class Dali:
    """NVIDIA DALI: decode, crop and resize on the CPU, or decode on the GPU (`mixed`)."""

    name: Literal["dali"] = "dali"
    threads: Count | None = None
    """CPU threads of each rank; by default the rank's share of the machine's cores."""
    read_threads: Count = 4
    """Threads that read bytes from the file system; more help where a read takes long."""
    decode: Literal["auto", "cpu", "mixed"] = "auto"
    """Where JPEGs are decoded: auto is mixed on a GPU, cpu otherwise."""
    region_decode: bool | None = None
    """Decode only the crop window. By default on the CPU only: on GPUs some nvImageCodec releases
    fail at it, so there the whole image is decoded and cut on the GPU."""
    prefetch_batches: Count = 2
    """Batches that are ready or under way ahead of the training step."""


@firm
class Synthetic:
    """One random batch over and over: how fast is everything but the loader?"""

    name: Literal["synthetic"] = "synthetic"


@firm
class Shuffled:
    """Each epoch is shuffled as a whole: for local disks, and for what fits into memory."""

    name: Literal["shuffled"] = "shuffled"


@firm
class Windowed:
    """Shuffled in windows that are read ahead in long runs: for network and spinning disks."""

    name: Literal["windowed"] = "windowed"
    shard_images: Count = 32
    """Consecutive images on disk that are read in one run. Images sorted by class need short ones,
    for batches in which the classes mix; shards of images that were shuffled may be long."""
    window_shards: Count = 512
    """Shards whose images are shuffled together; two windows of each lane should fit into the
    page cache."""
    lanes: Count = 1
    """Slices of the global batch, each of which goes through shards of its own; it must divide
    `train.global_batch`. With a lane for each node, no two nodes read the same shard."""


@firm
class Data:
    """Which images, how they are cut for training and evaluation, and who loads them."""

    dir: Path
    """A dataset made by data/prepare.py: manifest.json and one index for each split."""
    root: Path | None = None
    """Where the images lie, if they moved since the dataset was prepared."""
    stage: Path | None = None
    """A folder on a disk of each node's own: the images are copied there once, each is checked, and
    all are read from there. Copies are used again by later runs, until somebody deletes them."""
    train: Annotated[RandomResizedCrop | PadCrop, Field(discriminator="name")] = field(
        default_factory=RandomResizedCrop
    )
    """How training images are cut."""
    eval: ResizeCenterCrop = field(default_factory=ResizeCenterCrop)
    """How validation images are cut."""
    mean: Channels = (0.485, 0.456, 0.406)
    """Mean of each channel (red, green, blue), on a scale of 0 to 1."""
    std: Annotated[Channels, AfterValidator(_all_positive)] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, on a scale of 0 to 1."""
    order: Annotated[Shuffled | Windowed, Field(discriminator="name")] = field(
        default_factory=Shuffled
    )
    """In which order the images come: shuffled anew in each epoch, either way."""
    loader: Annotated[Dali | Synthetic, Field(discriminator="name")] = field(default_factory=Dali)
    verify: Literal["off", "files", "decode"] = "files"
    """Checked before step 1: `files`, that every file is there at its recorded size, and that some
    images of those modified since are what they were; `decode`, that every image also decodes
    (reads the whole dataset once)."""
    on_corrupt: Literal["fail", "skip"] = "fail"
    """An image that cannot be read or decoded stops the run, or the next sample takes its place
    and the replacement is counted."""


# --------------------------------------------------------------------------------------- model


@firm
class Model:
    """Which network, and how it starts."""

    name: Annotated[str, AfterValidator(lambda name: Architecture.parse(name).name)]
    """A name of the catalogue: resnet50, preact_resnet152, cifar_resnet20, cifar_plain56 ..."""
    zero_init_last: bool = True
    """Each residual branch starts at zero (Goyal et al. 2017, sec. 5.1): its last batch norm, or
    its last convolution in a pre-activation network."""
    batch_norm_group: Count | None = None
    """Images that share batch-norm statistics; by default all of a rank's micro batch. Fix it where
    results must not depend on the number of ranks."""

    @property
    def architecture(self) -> Architecture:
        return Architecture.parse(self.name)


# ------------------------------------------------------------------------------------ training


@firm
class Ema:
    """An exponential moving average of the weights, evaluated in place of them."""

    decay: Fraction = 0.9999
    every_steps: Count = 1
    """Steps between two updates of the average."""


@firm
class Train:
    """How long, in which batches and in which precision."""

    epochs: Positive | None = None
    """Passes over the training images (this or `steps`)."""
    steps: Count | None = None
    """Optimiser steps (this or `epochs`)."""
    global_batch: Count
    """Images of one optimiser step, over all ranks; each rank's micro batch is derived from it."""
    accumulation: Count = 1
    """Micro batches that a rank adds up in one step."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Autocast dtype; the weights stay in fp32, and fp16 scales the loss. On GPUs that have it,
    convolutions in fp32 use TF32, as is PyTorch's default."""
    channels_last: bool = True
    compile: bool | None = False
    """torch.compile the network: slow to start, then faster on GPUs; null is on GPUs only."""
    deterministic: bool = False
    """Bitwise repeatable kernels on GPUs, somewhat slower; on the CPU runs always repeat."""
    label_smoothing: Fraction = 0.0
    clip_norm: Positive | None = None
    """Gradients are scaled down to this norm, taken over all parameters, where it is larger."""
    ema: Ema | None = None
    log_every_steps: Count = 50
    """Steps between two reports of loss, rate and throughput; the loss is read from the device
    then and only then."""
    watchdog_minutes: Annotated[float, Field(ge=0)] | None = 10.0
    """A rank that completes no step for so long is ended, with exit code 86, and its stacks are
    written to RUN_DIR/stacks. Before the first step, and in what is no step, it has 30 minutes or
    more; 0 or null is never."""

    @model_validator(mode="after")
    def _compiles(self) -> "Train":
        if self.compile is not False and self.accumulation > 4:
            raise ValueError("compile does not go with accumulation over 4; set one of them lower")
        return self

    @model_validator(mode="after")
    def _length(self) -> "Train":
        exactly_one(self, "epochs", "steps")
        return self


@firm
class Sgd:
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Positive
    """Peak learning rate, at global batch `lr_batch`."""
    lr_batch: Count | None = None
    """The global batch that `lr` is meant for; the peak then scales linearly with the global
    batch (Goyal et al. 2017, sec. 2.1). By default `lr` is taken as it is."""
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norm_and_bias: bool = True
    """Whether weight decay also applies to norm layers' parameters and to biases."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Sgd":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum greater than 0")
        return self


@firm
class _WarmUp:
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    """Epochs over which the rate first rises linearly (this or `warmup_steps`)."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The rate that the warm-up starts from, as a share of the peak."""

    @model_validator(mode="after")
    def _one_warmup(self) -> "_WarmUp":
        at_most_one(self, "warmup_epochs", "warmup_steps")
        return self


@firm
class StepDecay(_WarmUp):
    """The rate is multiplied by `factor` at each milestone."""

    name: Literal["step"] = "step"
    milestones_epochs: tuple[Positive, ...] | None = None
    """Epochs at which the rate drops (this or `milestones_steps`)."""
    milestones_steps: tuple[Count, ...] | None = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _rising(self) -> "StepDecay":
        exactly_one(self, "milestones_epochs", "milestones_steps")
        milestones = self.milestones_epochs or self.milestones_steps or ()
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"milestones must rise, found {list(milestones)}")
        return self


@firm
class Cosine(_WarmUp):
    """Half a cosine from the peak down to `end` (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The rate that the decay ends at, as a share of the peak."""


@firm
class Polynomial(_WarmUp):
    """(1 - t) ** power from the peak down to `end`; power 1 is linear."""

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 2.0
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The rate that the decay ends at, as a share of the peak."""


Compression = Literal["none", "bf16"]


@firm
class Ddp:
    """PyTorch's DistributedDataParallel."""

    name: Literal["ddp"] = "ddp"
    bucket_megabytes: Positive = 25.0
    """Gradients that travel together in one all-reduce."""
    gradient_compression: Compression = "none"
    """Gradients travel as they are, or rounded to bf16: half the traffic, and another result."""


@firm
class DeepSpeed:
    """DeepSpeed, whose ZeRO cuts the optimiser's state up over the ranks."""

    name: Literal["deepspeed"] = "deepspeed"
    zero_stage: Literal[0, 1, 2] = 0
    """What is cut up over the ranks: 0 nothing, 1 the momentum, 2 the reduced gradients too."""
    bucket_megabytes: Positive | None = None
    """Gradients that travel together, at stages 1 and 2 (by default 100); at stage 0 all do."""
    overlap: bool = False
    """Share gradients out while the backward pass runs, at stages 1 and 2; the host then waits for
    the GPU in every step."""
    gradient_compression: Compression = "none"
    """Gradients travel as they are, or rounded to bf16: half the traffic, and another result."""

    @model_validator(mode="after")
    def _stage_has_it(self) -> "DeepSpeed":
        if self.zero_stage == 0 and self.bucket_megabytes is not None:
            raise ValueError("bucket_megabytes needs zero_stage 1 or 2: stage 0 has one bucket")
        if self.zero_stage == 0 and self.overlap:
            raise ValueError("overlap needs zero_stage 1 or 2, or the engine ddp, which overlaps")
        return self


# -------------------------------------------------------------------------- around the training


@firm
class Evaluate:
    """When, and in which batches, the validation images are counted."""

    every_epochs: Positive | None = None
    """Epochs between two evaluations (this or `every_steps`; by default 1 epoch)."""
    every_steps: Count | None = None
    rank_batch: Count = 256
    """Images a rank evaluates at a time; it never changes a result."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Evaluate":
        at_most_one(self, "every_epochs", "every_steps")
        return self


@firm
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


@firm
class Tracking:
    """Where MLflow shows the run. Training itself only writes a file and never waits for MLflow."""

    mlflow: bool = True
    """Ship the run's events to MLflow from a process of its own."""
    uri: str | None = None
    """Tracking server; by default $MLFLOW_TRACKING_URI, else an sqlite file beside the runs."""
    experiment: str = "imagenet-pipeline"
    drain_timeout_seconds: Annotated[float, Field(ge=0)] = 30.0
    """How long a finished run waits for MLflow; what is left is shipped in the background."""


@firm
class Config:
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    """Name of the recipe; its runs are called NAME-ID."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the initial weights, the order of the images and how each is augmented."""
    data: Data
    model: Model
    train: Train
    optim: Sgd
    schedule: Annotated[StepDecay | Cosine | Polynomial, Field(discriminator="name")]
    engine: Annotated[Ddp | DeepSpeed, Field(discriminator="name")] = field(default_factory=Ddp)
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tracking: Tracking = field(default_factory=Tracking)
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
