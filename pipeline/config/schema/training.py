"""The sections `train`, `optim` and `schedule`: how long to train, and how weights are updated."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.schema.section import (
    Count,
    Fraction,
    Positive,
    at_most_one,
    exactly_one,
    section,
)

Precision = Literal["fp32", "bf16", "fp16"]


@section
class Ema:
    """An exponential moving average of the weights, evaluated in their place."""

    decay: Fraction = 0.9999
    """Share of the average that each update keeps."""
    every_steps: Count = 1
    """Steps between updates of the average."""


@section
class Train:
    """How long to train, in which batches and in which precision."""

    epochs: Positive | None = None
    """Passes over the training images (this or `steps`)."""
    steps: Count | None = None
    """Optimiser steps (this or `epochs`)."""
    global_batch: Count
    """Images of one optimiser step, over all ranks. Each rank's micro batch is derived from it."""
    accumulation: Count = 1
    """Micro batches that each rank accumulates in one step."""
    precision: Literal["auto", Precision] = "bf16"
    """Autocast dtype. Weights stay in fp32; fp16 scales the loss. On GPUs that have TF32, fp32
    convolutions use it, which is PyTorch's default. `auto` is decided when the run first starts and
    kept when it resumes: bf16 where all devices have instructions for it (GPUs of compute
    capability 8.0, CPUs with AVX512-BF16 or AMX), else fp16 on GPUs and fp32 on CPUs."""
    channels_last: bool = True
    """Store images and weights in NHWC order, which is faster on most GPUs."""
    compile: bool | None = False
    """Use torch.compile: a slow start, then faster steps on GPUs. `null` compiles on GPUs only."""
    deterministic: bool = False
    """Use bitwise repeatable kernels on GPUs, which are slower. Runs on CPUs always repeat."""
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016)."""
    clip_norm: Positive | None = None
    """Scale gradients down to this norm, over all parameters, where theirs is larger."""
    ema: Ema | None = None
    """Average the weights over steps, and evaluate the average. `null` turns it off."""
    log_every_steps: Count = 50
    """Steps between reports of loss, learning rate and throughput. The loss is read from the device
    only then."""
    watchdog_minutes: Annotated[float, Field(ge=0)] | None = 10.0
    """A rank without a finished step for this many minutes writes its stacks to RUN_DIR/stacks and
    exits with code 86. Before the first step and outside steps (evaluation, the last checkpoint)
    the limit is at least 30 minutes. 0 or `null` turns it off."""

    @model_validator(mode="after")
    def _compiles(self) -> "Train":
        if self.compile is not False and self.accumulation > 4:
            raise ValueError(
                "compile does not work with accumulation over 4; lower it or set compile=false"
            )
        return self

    @model_validator(mode="after")
    def _length(self) -> "Train":
        exactly_one(self, "epochs", "steps")
        return self


@section
class Sgd:
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Positive
    """Peak learning rate, at a global batch of `lr_batch`."""
    lr_batch: Count | None = None
    """The global batch that `lr` is meant for: the peak scales linearly with `train.global_batch`
    (Goyal et al. 2017, sec. 2.1). By default `lr` is not scaled."""
    momentum: Fraction = 0.9
    """Momentum of the gradients; 0 is plain SGD."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Coefficient of weight decay (L2 penalty)."""
    decay_norm_and_bias: bool = True
    """Apply weight decay also to the parameters of norm layers and to biases."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Sgd":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum greater than 0")
        return self


@section
class _WarmUp:
    # Descriptions, because pydantic does not read the docstrings of inherited fields.
    warmup_epochs: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Epochs of linear warm-up (this or `warmup_steps`). By default none.",
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Steps of linear warm-up (this or `warmup_epochs`)."
    )
    warmup_start: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Learning rate at the start of the warm-up, as a fraction of the peak.",
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "_WarmUp":
        at_most_one(self, "warmup_epochs", "warmup_steps")
        return self


@section
class StepDecay(_WarmUp):
    """Multiply the learning rate by `factor` at each milestone."""

    name: Literal["step"] = "step"
    milestones_epochs: tuple[Positive, ...] | None = None
    """Epochs after which the rate drops (this or `milestones_steps`)."""
    milestones_steps: tuple[Count, ...] | None = None
    """Steps after which the rate drops (this or `milestones_epochs`)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the rate is multiplied by at each milestone."""

    @model_validator(mode="after")
    def _rising(self) -> "StepDecay":
        exactly_one(self, "milestones_epochs", "milestones_steps")
        milestones = self.milestones_epochs or self.milestones_steps or ()
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"milestones must increase, found {list(milestones)}")
        return self


@section
class Cosine(_WarmUp):
    """Half a cosine from the peak to `end` (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the end, as a fraction of the peak."""


@section
class Polynomial(_WarmUp):
    """A decay by `(1 - t) ** power` from the peak to `end`; t is the share of steps done."""

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 2.0
    """Exponent; 1 is linear."""
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the end, as a fraction of the peak."""
