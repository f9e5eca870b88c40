"""The section `engine`: how ranks share gradients and optimiser state."""

from typing import Literal

from pydantic import model_validator

from pipeline.config.schema.section import Positive, section

Compression = Literal["none", "bf16"]


@section
class Ddp:
    """PyTorch's DistributedDataParallel."""

    name: Literal["ddp"] = "ddp"
    bucket_megabytes: Positive = 25.0
    """Gradients of one all-reduce, in MiB."""
    gradient_compression: Compression = "none"
    """`bf16` rounds gradients before the all-reduce: half the traffic, but another result."""


@section
class DeepSpeed:
    """DeepSpeed: ZeRO partitions the optimiser state over the ranks (Rajbhandari et al. 2020)."""

    name: Literal["deepspeed"] = "deepspeed"
    zero_stage: Literal[0, 1, 2] = 0
    """What is partitioned: 0 nothing, 1 the optimiser state, 2 also the reduced gradients."""
    bucket_megabytes: Positive | None = None
    """Gradients reduced together at stages 1 and 2, in MB (default 100). Stage 0 has one bucket."""
    overlap: bool = False
    """Reduce gradients during the backward pass, at stages 1 and 2. The host then waits for the GPU
    in each step."""
    gradient_compression: Compression = "none"
    """`bf16` rounds gradients before they are reduced: half the traffic, but another result."""

    @model_validator(mode="after")
    def _stage_has_it(self) -> "DeepSpeed":
        if self.zero_stage == 0 and self.bucket_megabytes is not None:
            raise ValueError("bucket_megabytes needs zero_stage 1 or 2: stage 0 has one bucket")
        if self.zero_stage == 0 and self.overlap:
            raise ValueError("overlap needs zero_stage 1 or 2; the engine ddp always overlaps")
        return self
