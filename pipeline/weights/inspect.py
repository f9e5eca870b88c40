"""What a checkpoint holds, as figures for people and for programs."""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.checkpoint import MANIFEST, Progress, Tensors
from pipeline.tracking.console import duration
from pipeline.tracking.jsonl import METRICS, read_events
from pipeline.weights.average import AVERAGE
from pipeline.weights.stored import EMA, MODEL, StoredCheckpoint, is_statistic

NOT_OPTIMISER = {MODEL, EMA}
LIBRARIES = ("python", "torch", "torchvision", "nvidia-dali", "numpy")


@dataclass(frozen=True, slots=True)
class Group:
    """The tensors of one file."""

    tensors: int
    elements: int
    bytes: int
    """Of the tensors alone; the file's header comes on top."""
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
    """Figures of a checkpoint all of whose files match their hashes."""

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
    """Libraries and commit of the process that last began or resumed the run."""
    files: dict[str, int]
    """File name to size in bytes."""
    average_of: list[dict[str, Any]]
    """The checkpoints that it is the mean of; empty if it was trained."""


def inspect(stored: StoredCheckpoint) -> Inspection:
    """Return the figures of a checkpoint; what its run's folder would tell is None without it."""
    tensors, progress = stored.snapshot.tensors, stored.snapshot.progress
    model, config = tensors[MODEL], stored.config
    bias = model.get("fc.bias")
    epoch, top5, versions = _from_metrics(stored.run, progress.step)
    return Inspection(
        path=stored.path,
        progress=progress,
        config_name=config.name if config else None,
        network=config.model.name if config else None,
        parameters=sum(t.numel() for name, t in model.items() if not is_statistic(name)),
        classes=bias.numel() if bias is not None else None,
        epoch=epoch,
        top5_error_percent=top5,
        groups={name: _group(group) for name, group in sorted(tensors.items())},
        optimiser_groups=sorted(tensors.keys() - NOT_OPTIMISER),
        has_ema=stored.has_average(),
        versions=versions,
        files={file.name: file.stat().st_size for file in sorted(stored.path.iterdir())},
        average_of=_average_of(stored.path),
    )


def list_tensors(stored: StoredCheckpoint) -> list[TensorFigures]:
    """Return the figures of each tensor, group by group."""
    return [
        TensorFigures(group, name, tuple(tensor.shape), _dtype(tensor), _norm(tensor))
        for group, tensors in sorted(stored.snapshot.tensors.items())
        for name, tensor in tensors.items()
    ]


def to_json(inspection: Inspection, tensors: list[TensorFigures] | None = None) -> str:
    """Return everything as one JSON object; numbers that are not finite are null."""
    whole: dict[str, Any] = asdict(inspection) | asdict(inspection.progress)
    del whole["progress"]
    whole |= {"path": str(inspection.path), "hashes": "match"}
    if tensors is not None:
        whole["tensors"] = [asdict(figures) for figures in tensors]
    return json.dumps(_finite(whole), indent=2, allow_nan=False)


def to_text(inspection: Inspection, tensors: list[TensorFigures] | None = None) -> str:
    """Return a table of the figures, one of the groups, and if asked one of the tensors."""
    parts = [_aligned([[f"{name}:", value] for name, value in _lines(inspection)])]
    rows = [["group", "tensors", "elements", "bytes", "dtypes"]]
    for name, group in inspection.groups.items():
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in group.dtypes.items())
        rows.append(
            [name, *(f"{n:,}" for n in (group.tensors, group.elements, group.bytes)), dtypes]
        )
    parts.append(_aligned(rows, right=(1, 2, 3)))
    if tensors is not None:
        rows = [["group", "tensor", "shape", "dtype", "norm"]]
        rows += [
            [t.group, t.name, "x".join(map(str, t.shape)) or "-", t.dtype, f"{t.norm:.6g}"]
            for t in tensors
        ]
        parts.append(_aligned(rows, right=(4,)))
    return "\n\n".join(parts)


def _lines(shown: Inspection) -> list[tuple[str, str]]:
    progress = shown.progress
    classes = f", {shown.classes:,} classes" if shown.classes is not None else ""
    network = f"{shown.network or 'unknown'}, {shown.parameters:,} parameters{classes}"
    epoch = f", epoch {shown.epoch:.2f}" if shown.epoch is not None else ""
    libraries = ", ".join(f"{name} {version}" for name, version in shown.versions.items())
    lines = [
        ("checkpoint", str(shown.path)),
        ("files", f"{len(shown.files)}, {sum(shown.files.values()):,} bytes; all hashes match"),
        ("config", shown.config_name or "unknown"),
        ("network", network),
        ("step", f"{progress.step:,}{epoch}, after {duration(progress.seconds)} of training"),
        ("errors", _errors(shown)),
        ("dataset", f"fingerprint {progress.fingerprint}"),
        ("stream", f"seed {progress.seed}, global batch {progress.global_batch:,}"),
        ("average", "EMA of the weights" if shown.has_ema else "no EMA of the weights"),
        ("optimiser", ", ".join(shown.optimiser_groups) or "none: a run cannot go on from it"),
        ("loss scale", f"{progress.scaler.get('scale', 'none')}"),
        ("versions", libraries or "unknown"),
    ]
    if shown.average_of:
        steps = ", ".join(str(source["step"]) for source in shown.average_of)
        lines.append(("mean of", f"{len(shown.average_of)} checkpoints, of steps {steps}"))
    return lines


def _errors(shown: Inspection) -> str:
    named = (
        ("top-1", shown.progress.top1_error_percent),
        ("top-5", shown.top5_error_percent),
        ("best top-1 so far", shown.progress.best_top1_error_percent),
    )
    told = [f"{name} {error:.2f} %" for name, error in named if error is not None]
    return ", ".join(told) or "not evaluated"


def _from_metrics(run: Path | None, step: int) -> tuple[float | None, float | None, dict[str, str]]:
    """Epoch and top-5 error of `step`, and the versions, as the run's events tell them."""
    epoch: float | None = None
    top5: float | None = None
    versions: dict[str, str] = {}
    if run is None or not (run / METRICS).exists():
        return epoch, top5, versions
    for event in read_events(run / METRICS):
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


def _average_of(path: Path) -> list[dict[str, Any]]:
    manifest = json.loads((path / MANIFEST).read_text())
    if AVERAGE not in manifest["sha256"]:
        return []
    return json.loads((path / AVERAGE).read_text())["checkpoints"]


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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in cast("list[Any]", value)]
    return value


def _aligned(rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """Columns two spaces apart; those whose numbers are in `right` end at one edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
