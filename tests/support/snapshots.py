"""Small checkpoints for tests; the weights of each equal its step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint import (
    Checkpoints,
    Progress,
    Snapshot,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
)

PROGRESS_AT_1 = Progress(step=1, fingerprint="f", seed=0, global_batch=8)


def snapshot(step: int, error: float | None = None) -> Snapshot:
    tensors = {"weight": torch.full((300,), float(step)), "count": torch.tensor(step)}
    progress = replace(PROGRESS_AT_1, step=step, top1_error_percent=error)
    return Snapshot({"model": tensors, "momentum": {}}, progress)


def open_checkpoints(
    folder: Path, warn: Callable[[str], None], *, keep_last: int = 2, keep_best: bool = True
) -> Checkpoints:
    return Checkpoints(
        folder, keep_last=keep_last, keep_best=keep_best, saved=lambda *_: None, warn=warn
    )


def save_all(folder: Path, snapshots: list[Snapshot], **keep: Any) -> list[str]:
    """Save through a `Checkpoints`, as a run does; return its warnings."""
    warnings: list[str] = []
    with open_checkpoints(folder, warnings.append, **keep) as checkpoints:
        for one in snapshots:
            checkpoints.save(one)
    return warnings


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(folder)]


def newest_step(folder: Path) -> int | None:
    """The step of the checkpoint that a run would resume from, after checking its weights."""
    path = newest_checkpoint(folder, lambda _: None)
    if path is None:
        return None
    loaded = read_checkpoint(path)
    step = loaded.progress.step
    assert torch.equal(loaded.tensors["model"]["weight"], torch.full((300,), float(step)))
    return step


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
