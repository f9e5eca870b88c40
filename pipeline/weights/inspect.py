"""The figures of a checkpoint: its network, its tensors, and how far it was trained."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.checkpoint import EMA, MODEL, CheckpointError, Progress, Tensors
from pipeline.runs.find import missing_final_step
from pipeline.weights.average import AVERAGE_FILE
from pipeline.weights.stored import StoredCheckpoint, is_statistic

SCHEDULE_FILE, PROVENANCE_FILE = "schedule.json", "provenance.json"
NOT_OPTIMISER = {MODEL, EMA}
LIBRARIES = ("python", "torch", "torchvision", "nvidia-dali", "numpy")

Event = Mapping[str, Any]
"""One line of a run's event file."""


@dataclass(frozen=True, slots=True)
class Group:
    """The tensors of one file."""

    tensors: int
    elements: int
    bytes: int
    """Bytes of the tensors, without the header of the file."""
    dtypes: dict[str, int]
    """Name of each dtype to its number of tensors."""


@dataclass(frozen=True, slots=True)
class TensorFigures:
    """One tensor; `norm` is the square root of its sum of squares, in double precision."""

    group: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    norm: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """Figures of a checkpoint all of whose files match their hashes; None where unknown."""

    path: Path
    progress: Progress
    config_name: str | None
    network: str | None
    parameters: int
    classes: int | None
    epoch: float | None
    top5_error_percent: float | None
    groups: dict[str, Group]
    optimiser_groups: list[str]
    has_ema: bool
    versions: dict[str, str]
    """Libraries and commit of the process that last started or resumed the run."""
    files: dict[str, int]
    """File name to size in bytes."""
    average_of: list[dict[str, Any]]
    """The checkpoints that it is the mean of; empty if it was trained."""
    missing_final_step: int | None
    """The last step of its run if that is finished and the checkpoint of that step is missing."""


def inspect(stored: StoredCheckpoint, events: Iterable[Event] = ()) -> Inspection:
    """Return the figures of a checkpoint.

    `events` are those of its run, if available: the top-5 error comes from them, and for
    checkpoints without `schedule.json` and `provenance.json` also the epoch and the versions.
    """
    tensors, progress = stored.snapshot.tensors, stored.snapshot.progress
    model, config = tensors[MODEL], stored.config
    bias = model.get("fc.bias")
    epoch, top5, versions = _from_events(events, progress.step)
    return Inspection(
        path=stored.path,
        progress=progress,
        config_name=config.title if config else None,
        network=config.model.name if config else None,
        parameters=sum(t.numel() for name, t in model.items() if not is_statistic(name)),
        classes=bias.numel() if bias is not None else None,
        epoch=_document(stored, SCHEDULE_FILE).get("epoch", epoch),
        top5_error_percent=top5,
        groups={name: _group(group) for name, group in sorted(tensors.items())},
        optimiser_groups=sorted(tensors.keys() - NOT_OPTIMISER),
        has_ema=stored.has_ema,
        versions=_versions(_document(stored, PROVENANCE_FILE)) or versions,
        files={file.name: file.stat().st_size for file in sorted(stored.path.iterdir())},
        average_of=_document(stored, AVERAGE_FILE).get("checkpoints", []),
        missing_final_step=missing_final_step(stored.run) if stored.run else None,
    )


def list_tensors(stored: StoredCheckpoint) -> list[TensorFigures]:
    """Return the figures of each tensor, group by group."""
    return [
        TensorFigures(group, name, tuple(tensor.shape), _dtype(tensor), _norm(tensor))
        for group, tensors in sorted(stored.snapshot.tensors.items())
        for name, tensor in tensors.items()
    ]


def _from_events(
    events: Iterable[Event], step: int
) -> tuple[float | None, float | None, dict[str, str]]:
    """Epoch and top-5 error of `step`, and the versions of the last start."""
    epoch: float | None = None
    top5: float | None = None
    versions: dict[str, str] = {}
    for event in events:
        match event:
            case {"event": "run_started", "last_step": int(last), "last_epoch": float(epochs)} if (
                last
            ):
                epoch = step * epochs / last
                versions = _versions(event.get("tags"))
            case {"event": "evaluated", "step": at, "top5_error_percent": float(error)} if (
                at == step
            ):
                top5 = error
            case _:
                pass
    return epoch, top5, versions


def _versions(tags: object) -> dict[str, str]:
    if not isinstance(tags, dict):
        return {}
    known = cast("dict[str, object]", tags)
    return {name: str(known[name]) for name in (*LIBRARIES, "git_commit") if name in known}


def _document(stored: StoredCheckpoint, name: str) -> dict[str, Any]:
    """A JSON document of the checkpoint; empty if it is missing."""
    try:
        content: Any = json.loads(stored.snapshot.documents.get(name, "{}"))
    except ValueError as error:
        raise CheckpointError(f"{stored.path / name} is not valid JSON ({error})") from error
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _group(tensors: Tensors) -> Group:
    values = tensors.values()
    return Group(
        tensors=len(tensors),
        elements=sum(tensor.numel() for tensor in values),
        bytes=sum(tensor.nbytes for tensor in values),
        dtypes=dict(Counter(map(_dtype, values))),
    )


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _norm(tensor: torch.Tensor) -> float:
    return tensor.double().square().sum().sqrt().item()
