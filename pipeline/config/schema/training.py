"""The sections `train`, `optim` and `schedule`: how long, and by which rule weights are changed."""

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


@section
class Ema:
    """An exponential moving average of the weights, evaluated in place of them."""

    decay: Fraction = 0.9999
    every_steps: Count = 1
    """Steps between two updates of the average."""


@section
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


@section
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


@section
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


@section
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


@section
class Cosine(_WarmUp):
    """Half a cosine from the peak down to `end` (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"] = "cosine"
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The rate that the decay ends at, as a share of the peak."""


@section
class Polynomial(_WarmUp):
    """(1 - t) ** power from the peak down to `end`; power 1 is linear."""

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 2.0
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The rate that the decay ends at, as a share of the peak."""
