"""The uniform mean of several checkpoints of a run, as a checkpoint to use and not to resume."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline.checkpoint import MANIFEST, Progress, Snapshot, Tensors, write_checkpoint
from pipeline.config.load import dump
from pipeline.config.schema import Config
from pipeline.runs.folder import CONFIG_FILE
from pipeline.system.durable import sync_folder, write_durably
from pipeline.weights.stored import (
    CHECKPOINTS,
    MODEL,
    StoredCheckpoint,
    is_statistic,
    network_of,
    open_stored,
)

AVERAGE = "average.json"
"""Beside the tensors of a mean: which checkpoints it is of."""


@dataclass(frozen=True, slots=True)
class AveragedCheckpoint:
    """What is kept of a checkpoint once its tensors are added up."""

    path: Path
    progress: Progress
    config: Config | None
    has_average: bool
    shapes: dict[str, str]
    """Name of each tensor to its dtype and shape in words."""

    @staticmethod
    def of(stored: StoredCheckpoint, weights: Tensors) -> "AveragedCheckpoint":
        shapes = {name: f"{v.dtype} {tuple(v.shape)}" for name, v in weights.items()}
        progress = stored.snapshot.progress
        return AveragedCheckpoint(
            stored.path, progress, stored.config, stored.has_average(), shapes
        )


def average(
    paths: Sequence[Path],
    out: Path,
    *,
    live: bool = False,
    config: Path | None = None,
    recompute_batches: int = 0,
) -> Path:
    """Write the mean of checkpoints to the new folder `out`, itself a checkpoint; return it.

    Sums are in double precision. Of each checkpoint its moving average counts if it has one, unless
    `live`. The mean has no optimiser's state. With `recompute_batches`, batch norm's statistics are
    taken anew over that many global batches of the training images. Raises `ValueError` unless
    there are two checkpoints or more, of one network, one dataset and one seed.
    """
    _expect_free(out)
    if len(paths) < 2:
        raise ValueError("a mean is of two checkpoints or more; name them, or a run with --last N")
    sums: Tensors = {}
    dtypes: dict[str, torch.dtype] = {}
    members: list[AveragedCheckpoint] = []
    for path in paths:
        stored = open_stored(path, config)
        weights = stored.weights(live=live)
        members.append(AveragedCheckpoint.of(stored, weights))
        _expect_alike(members[0], members[-1], live=live)
        _add(sums, weights)
        dtypes = {name: value.dtype for name, value in weights.items()}
    mean = {
        name: total.div(len(paths)).to(dtypes[name]) if dtypes[name].is_floating_point else total
        for name, total in sums.items()
    }
    last = max(members, key=lambda member: member.progress.step)
    if recompute_batches:
        mean |= _recomputed(mean, last, recompute_batches)
    origin: dict[str, Any] = {
        "checkpoints": [_name(member) for member in members],
        "weights": "ema" if last.has_average and not live else "live",
        "statistics_batches": recompute_batches,
    }
    return _write(out, mean, last, origin)


def _expect_free(out: Path) -> None:
    if out.exists():
        raise ValueError(f"--out {out} exists; delete it, or name another")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.absolute().parent.name == CHECKPOINTS:
        raise ValueError(
            f"--out {out} lies among a run's own checkpoints, and the run would try to go on from"
            " it; name a folder elsewhere"
        )


def _expect_alike(first: AveragedCheckpoint, other: AveragedCheckpoint, *, live: bool) -> None:
    """Raise `ValueError` if the mean of the two would be of no use."""
    theirs, ours = _recipe(first), _recipe(other)
    for key in sorted(theirs.keys() & ours.keys()):
        if theirs[key] != ours[key]:
            raise _unlike(first, other, "network", f"{key} is {theirs[key]} and {ours[key]}")
    for name in sorted(first.shapes.keys() | other.shapes.keys()):
        kinds = [member.shapes.get(name, "missing") for member in (first, other)]
        if kinds[0] != kinds[1]:
            raise _unlike(first, other, "network", f"{name} is {kinds[0]} and {kinds[1]}")
    if first.progress.fingerprint != other.progress.fingerprint:
        prints = f"{first.progress.fingerprint} and {other.progress.fingerprint}"
        raise _unlike(first, other, "dataset", f"fingerprints {prints}")
    if first.progress.seed != other.progress.seed:
        why = "networks that began with other weights have no common mean"
        raise _unlike(
            first, other, "seed", f"{first.progress.seed} and {other.progress.seed}; {why}"
        )
    if first.has_average != other.has_average and not live:
        raise ValueError(
            f"only one of {first.path} and {other.path} has an EMA of its weights;"
            " take the weights themselves with --live"
        )


def _recipe(member: AveragedCheckpoint) -> dict[str, object]:
    """What tensors of the same shape may still differ in, as far as it is known."""
    config = member.config
    if config is None:
        return {}
    return {
        "model.name": config.model.name,
        "data.mean": config.data.mean,
        "data.std": config.data.std,
    }


def _unlike(
    first: AveragedCheckpoint, other: AveragedCheckpoint, what: str, why: str
) -> ValueError:
    return ValueError(f"{first.path} and {other.path} are not of one {what} ({why})")


def _add(sums: Tensors, weights: Tensors) -> None:
    """Add `weights` to `sums`, which begin empty; of whole numbers, counts, keep the largest."""
    for name, value in weights.items():
        if not value.is_floating_point():
            sums[name] = torch.maximum(sums.get(name, value), value)
        elif name in sums:
            sums[name] += value
        else:
            sums[name] = value.double()


def _recomputed(mean: Tensors, last: AveragedCheckpoint, batches: int) -> Tensors:
    if last.config is None:
        raise ValueError(f"{last.path}: no configuration to load images by; give --config FILE")
    from pipeline.weights.batch_statistics import recomputed_statistics

    network = network_of(last.config, mean, last.path)
    state = recomputed_statistics(network, last.config, last.progress, batches=batches)
    return {name: value for name, value in state.items() if is_statistic(name)}


def _name(member: AveragedCheckpoint) -> dict[str, Any]:
    digest = json.loads((member.path / MANIFEST).read_text())["sha256"][f"{MODEL}.safetensors"]
    return {"path": str(member.path), "step": member.progress.step, "model_sha256": digest}


def _write(out: Path, mean: Tensors, last: AveragedCheckpoint, origin: dict[str, Any]) -> Path:
    """Write the checkpoint aside, with two files more, and rename it when it is whole."""
    progress = replace(
        last.progress, top1_error_percent=None, best_top1_error_percent=None, scaler={}
    )
    more = {AVERAGE: json.dumps(origin, indent=2).encode() + b"\n"}
    if last.config:
        more[CONFIG_FILE] = dump(last.config).encode()
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as aside:
        made = write_checkpoint(Path(aside), Snapshot({MODEL: mean}, progress))
        manifest = json.loads((made / MANIFEST).read_text())
        for name, content in more.items():
            write_durably(made / name, content)
            manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
        write_durably(made / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        sync_folder(made)
        made.rename(out)
    sync_folder(out.parent)
    return out
