"""The section `engine`: who shares gradients among the ranks, and in what form."""

from typing import Literal

from pydantic import model_validator

from pipeline.config.schema.section import Positive, section

Compression = Literal["none", "bf16"]


@section
class Ddp:
    """PyTorch's DistributedDataParallel."""

    name: Literal["ddp"] = "ddp"
    bucket_megabytes: Positive = 25.0
    """Gradients that travel together in one all-reduce."""
    gradient_compression: Compression = "none"
    """Gradients travel as they are, or rounded to bf16: half the traffic, and another result."""


@section
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
