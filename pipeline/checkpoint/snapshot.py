"""The contents of a checkpoint, in memory."""

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
    """How far a run has trained; everything in a checkpoint that is neither tensor nor document."""

    step: Annotated[int, Field(ge=0)]
    fingerprint: str
    """The dataset's; with `seed` and `global_batch` it determines the stream of images."""
    seed: int
    global_batch: int
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Time spent training so far."""
    top1_error_percent: Percent | None = None
    """At this step, if it was evaluated."""
    best_top1_error_percent: Percent | None = None
    scaler: dict[str, int | float] = field(default_factory=dict[str, int | float])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a checkpoint contains: groups of tensors, the progress, and documents.

    `documents` are texts by file name, which ends in .json or .yaml. Training does not need them;
    they describe a checkpoint that was copied out of its run.
    """

    tensors: Mapping[str, Tensors]
    progress: Progress
    documents: Mapping[str, str] = field(default_factory=dict[str, str])


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FileHashes:
    """The files of a complete checkpoint."""

    sha256: dict[str, str]
    """File name to hex digest."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used."""


def expect_same_stream(saved: Progress, expected: Progress, path: Path) -> None:
    """Raise `CheckpointError` if the images after `saved` are from another stream."""
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
    """Raise `CheckpointError` unless each group of `expected` is the same in `saved`.

    Tensors are compared by name, dtype and shape; `saved` may have more groups.
    """
    if missing := expected.keys() - saved.keys():
        raise CheckpointError(
            f"checkpoint {path} has no {' and no '.join(sorted(missing))} (it may be an average,"
            " from which a run cannot resume); remove it, or set another run_dir"
        )
    for group, tensors in expected.items():
        was, now = _kinds(saved[group]), _kinds(tensors)
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                raise CheckpointError(
                    f"checkpoint {path} is from another network: in {group}, {name} is"
                    f" {was.get(name, 'missing')} there and {now.get(name, 'missing')} here;"
                    " set another run_dir"
                )


def _kinds(tensors: Tensors) -> dict[str, str]:
    return {
        name: f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
    }
