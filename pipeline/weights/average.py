"""The uniform mean of several checkpoints of a run: a checkpoint to use, not to resume."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pipeline.checkpoint import (
    DATASET_FILE,
    MODEL,
    Progress,
    Snapshot,
    Tensors,
    TrainedOn,
    describe_dataset,
    write_checkpoint,
)
from pipeline.checkpoint.reading import read_manifest
from pipeline.config.load import dump
from pipeline.config.schema import Config
from pipeline.runs.folder import CONFIG_FILE
from pipeline.system.durable import sync_folder
from pipeline.weights.batch_statistics import recompute_statistics
from pipeline.weights.find import CHECKPOINTS
from pipeline.weights.stored import StoredCheckpoint, build_network, is_statistic, open_stored

AVERAGE_FILE = "average.json"
"""Beside the tensors of a mean: the checkpoints that it is the mean of."""


@dataclass(frozen=True, slots=True)
class Member:
    """The facts kept about a checkpoint once its tensors are added to the sums."""

    path: Path
    progress: Progress
    config: Config | None
    dataset: TrainedOn | None
    has_ema: bool
    shapes: dict[str, str]
    """Name of each tensor to its dtype and shape in words."""

    @staticmethod
    def of(stored: StoredCheckpoint, weights: Tensors) -> "Member":
        shapes = {name: f"{v.dtype} {tuple(v.shape)}" for name, v in weights.items()}
        progress = stored.snapshot.progress
        return Member(stored.path, progress, stored.config, stored.dataset, stored.has_ema, shapes)

    def describe(self) -> dict[str, Any]:
        """Return what identifies it: path, step and the SHA-256 of its weights."""
        digest = read_manifest(self.path).sha256[f"{MODEL}.safetensors"]
        return {"path": str(self.path), "step": self.progress.step, "model_sha256": digest}


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of the weights of `members`, in memory."""

    weights: Tensors
    members: tuple[Member, ...]
    live: bool
    """Whether it is the mean of the trained weights even if there are moving averages."""
    statistics_batches: int = 0
    """Batches over which batch norm's statistics were recomputed; 0 if they are a mean as well."""

    @property
    def last(self) -> Member:
        """The member with the most steps; the mean takes its configuration and progress."""
        return max(self.members, key=lambda member: member.progress.step)

    def require_config(self) -> Config:
        """Return the configuration, or raise `ValueError` with the remedy."""
        if self.last.config is None:
            raise ValueError(f"{self.last.path}: its configuration is missing; give --config FILE")
        return self.last.config

    def with_statistics(self, batches: Iterable[torch.Tensor]) -> "Average":
        """Return the same mean with batch norm's statistics recomputed over training images.

        `batches` are uint8 (n, h, w, 3), augmented as in training. Raises `ValueError` if the
        configuration is missing, or is not that of this network.
        """
        config = self.require_config()
        # The network shares these tensors, and the statistics are replaced in place.
        own = {name: v.clone() if is_statistic(name) else v for name, v in self.weights.items()}
        network = build_network(config, own, self.last.path)
        group = config.model.batch_norm_group or config.evaluate.batch_per_rank
        seen = recompute_statistics(
            network, batches, mean=config.data.mean, std=config.data.std, group=group
        )
        state = network.state_dict()
        statistics = {name: value for name, value in state.items() if is_statistic(name)}
        return replace(self, weights=self.weights | statistics, statistics_batches=seen)

    def save(self, out: Path) -> None:
        """Write the mean as a checkpoint into the new folder `out`, completely or not at all.

        It has no optimiser state and no errors, since it was neither trained nor evaluated.
        """
        expect_new(out)
        snapshot = Snapshot({MODEL: self.weights}, self._progress(), self._documents())
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as aside:
            write_checkpoint(Path(aside), snapshot).rename(out)
        sync_folder(out.parent)

    def _progress(self) -> Progress:
        return replace(
            self.last.progress, top1_error_percent=None, best_top1_error_percent=None, scaler={}
        )

    def _documents(self) -> dict[str, str]:
        origin = {
            "checkpoints": [member.describe() for member in self.members],
            "weights": "ema" if self.last.has_ema and not self.live else "live",
            "statistics_batches": self.statistics_batches,
        }
        documents = {AVERAGE_FILE: json.dumps(origin, indent=2) + "\n"}
        if self.last.config:
            documents[CONFIG_FILE] = dump(self.last.config)
        if self.last.dataset:
            documents[DATASET_FILE] = describe_dataset(self.last.dataset)
        return documents


def average(paths: Sequence[Path], *, live: bool = False, config: Path | None = None) -> Average:
    """Return the mean of the checkpoints at `paths`; they are read one after the other.

    Sums are in double precision. The moving average of a checkpoint counts if it has one, unless
    `live`. `config` replaces the configurations of the runs. Raises `ValueError` unless there are
    at least two checkpoints, of one network, one dataset and one seed.
    """
    if len(paths) < 2:
        raise ValueError("a mean needs at least two checkpoints; name them, or a run with --last N")
    sums: Tensors = {}
    dtypes: dict[str, torch.dtype] = {}
    members: list[Member] = []
    for path in paths:
        stored = open_stored(path, config)
        weights = stored.weights(live=live)
        members.append(Member.of(stored, weights))
        _expect_alike(members[0], members[-1], live=live)
        _add(sums, weights)
        dtypes = {name: value.dtype for name, value in weights.items()}
    mean = {
        name: total.div(len(paths)).to(dtypes[name]) if dtypes[name].is_floating_point else total
        for name, total in sums.items()
    }
    return Average(mean, tuple(members), live)


def expect_new(out: Path) -> None:
    """Raise `ValueError` unless a mean may be written to the folder `out`."""
    if out.exists():
        raise ValueError(f"--out {out} exists; delete it, or choose another")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: folder {out.parent} is missing; create it first")
    if out.absolute().parent.name == CHECKPOINTS:
        raise ValueError(
            f"--out {out} is among a run's own checkpoints, and the run would try to resume from"
            " it; name a folder elsewhere"
        )


def _expect_alike(first: Member, other: Member, *, live: bool) -> None:
    """Raise `ValueError` if the mean of the two would be useless."""
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
        why = "networks with different initial weights have no useful mean"
        raise _unlike(
            first, other, "seed", f"{first.progress.seed} and {other.progress.seed}; {why}"
        )
    if first.has_ema != other.has_ema and not live:
        raise ValueError(
            f"only one of {first.path} and {other.path} has an EMA of its weights;"
            " average the trained weights with --live"
        )


def _recipe(member: Member) -> dict[str, object]:
    """Settings that must agree although no shape depends on them; empty if they are unknown."""
    config = member.config
    if config is None:
        return {}
    return {
        "model.name": config.model.name,
        "data.mean": config.data.mean,
        "data.std": config.data.std,
    }


def _unlike(first: Member, other: Member, what: str, why: str) -> ValueError:
    return ValueError(f"{first.path} and {other.path} have different {what}s ({why})")


def _add(sums: Tensors, weights: Tensors) -> None:
    """Add `weights` to `sums`, empty at first; of counts, which are integers, keep the largest."""
    for name, value in weights.items():
        if not value.is_floating_point():
            sums[name] = torch.maximum(sums.get(name, value), value)
        elif name in sums:
            sums[name] += value
        else:
            sums[name] = value.double()
