"""What a checkpoint holds, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, with_config

Tensors = dict[str, torch.Tensor]

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Percent = Annotated[float, Field(ge=0, le=100)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, besides its tensors."""

    step: Annotated[int, Field(ge=0)]
    fingerprint: str
    """Of the dataset; with seed and global batch, what the stream of images depends on."""
    seed: int
    global_batch: int
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Time spent training so far."""
    top1_error_percent: Percent | None = None
    """Of this very step, if it was evaluated."""
    best_top1_error_percent: Percent | None = None
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
class FileHashes:
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


def expect_same_tensors(
    saved: Mapping[str, Tensors], expected: Mapping[str, Tensors], path: Path
) -> None:
    """Raise `CheckpointError` unless all of `expected` is in `saved`, and in its groups no more."""
    if missing := expected.keys() - saved.keys():
        raise CheckpointError(
            f"checkpoint {path} holds no {' and no '.join(sorted(missing))} (is it an average, to"
            " use and not to resume?); remove it, or give another run_dir"
        )
    for group, tensors in expected.items():
        was, now = _kinds(saved[group]), _kinds(tensors)
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                raise CheckpointError(
                    f"checkpoint {path} is of another network: in {group}, {name} is"
                    f" {was.get(name, 'missing')} there and {now.get(name, 'missing')} here;"
                    " give another run_dir"
                )


def _kinds(tensors: Tensors) -> dict[str, str]:
    return {
        name: f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
    }
