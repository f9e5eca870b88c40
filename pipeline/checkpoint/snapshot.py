"""What a checkpoint holds, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import ConfigDict, with_config

Tensors = dict[str, torch.Tensor]

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
STRICT = ConfigDict(extra="forbid", strict=True)


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, besides its tensors."""

    step: int
    fingerprint: str
    """Of the dataset; with seed and global batch, what the stream of images depends on."""
    seed: int
    global_batch: int
    seconds: float = 0.0
    """Time spent training so far."""
    top1_error_percent: float | None = None
    """Of this very step, if it was evaluated."""
    best_top1_error_percent: float | None = None
    scaler: dict[str, int | float] = field(default_factory=dict[str, int | float])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a checkpoint holds: groups of tensors, the progress, and what explains them.

    `documents` are texts by their file names, which end in .json or .yaml. Training goes on without
    them; people and programs that find the checkpoint alone read them.
    """

    tensors: Mapping[str, Tensors]
    progress: Progress
    documents: Mapping[str, str] = field(default_factory=dict[str, str])


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Manifest:
    """What a whole checkpoint consists of."""

    sha256: dict[str, str]
    """File name to hex digest."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why."""


def expect_same_stream(saved: Progress, expected: Progress, path: Path) -> None:
    """Raise `CheckpointError` if going on from `saved` would bring other images than before."""
    for name in ("fingerprint", "seed", "global_batch"):
        was, now = getattr(saved, name), getattr(expected, name)
        if was != now:
            raise CheckpointError(
                f"checkpoint {path} was trained with {name} {was}, and this run has {now};"
                " use the same, or another run_dir"
            )
