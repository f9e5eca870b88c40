"""A checkpoint on disk, found by what a person names: a run, one of its steps, or a folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from pipeline.checkpoint import (
    PROGRESS,
    Snapshot,
    Tensors,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    read_progress,
)
from pipeline.config.load import ConfigError, load
from pipeline.config.schema import Config
from pipeline.models import build
from pipeline.runs.folder import CONFIG_FILE

MODEL, EMA = "model", "ema"
"""Groups of tensors: the network's weights and statistics, and their moving average."""
CHECKPOINTS = "checkpoints"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps besides its parameters."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that is whole, and what lies beside it."""

    path: Path
    snapshot: Snapshot
    config: Config | None
    """Of its run, or as named; None if there is none that can be read."""
    why_no_config: str = ""

    @property
    def run(self) -> Path | None:
        """The folder of the run that saved it, if it still lies there."""
        return self.path.parent.parent if self.path.parent.name == CHECKPOINTS else None

    def require_config(self) -> Config:
        """Return the configuration, or raise `ValueError` with the remedy."""
        if self.config is None:
            raise ValueError(f"{self.path}: {self.why_no_config}; name one with --config FILE")
        return self.config

    def weights(self, *, live: bool) -> Tensors:
        """Return all that the network needs, by name: the moving average if there is one.

        `live` asks for the weights that are trained instead. What an average leaves out, such as
        counts of batches, comes from those.
        """
        model, average = self.snapshot.tensors[MODEL], self.snapshot.tensors.get(EMA, {})
        if unknown := average.keys() - model.keys():
            raise ValueError(f"{self.path}: its average has {min(unknown)}, which its model lacks")
        return model if live else model | average

    def has_average(self) -> bool:
        return EMA in self.snapshot.tensors


def locate_all(place: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first, or the one that `place` is.

    Raises `ValueError` if it is neither, or a run that has none yet.
    """
    folder = place / CHECKPOINTS if (place / CHECKPOINTS).is_dir() else place
    if found := list_checkpoints(folder):
        return found
    if folder != place:
        raise ValueError(f"{place} has no checkpoint yet; see checkpoint.every_epochs")
    marks = (PROGRESS, f"{MODEL}.safetensors")
    if place.is_dir() and (
        place.name.startswith("step-") or any((place / m).exists() for m in marks)
    ):
        return [place]
    what = "is neither a run folder nor a checkpoint" if place.exists() else "does not exist"
    raise ValueError(f"{place} {what}; name a run, or RUN/checkpoints/step-N")


def locate(
    place: Path, *, step: int | None = None, best: bool = False, warn: Callable[[str], None]
) -> Path:
    """Return one checkpoint of those of `place`: that of a step, the best, or the newest whole one.

    Raises `ValueError` if there is none; `warn` hears of those that are passed over as damaged.
    """
    found = locate_all(place)
    if found == [place]:
        if step is not None or best:
            raise ValueError(f"{place} is one checkpoint; --step and --best choose from a run")
        return place
    if step is not None:
        return _of_step(found, step)
    if best:
        return _best(found, place, warn)
    newest = newest_checkpoint(found[0].parent, warn)
    if newest is None:
        raise ValueError(f"{place}: none of its {len(found)} checkpoints is whole")
    return newest


def open_stored(path: Path, config: Path | None = None) -> StoredCheckpoint:
    """Read and verify a checkpoint; raise `CheckpointError` if anything is amiss.

    Its configuration is that in the file `config` (`ConfigError` if that is wrong), or else the one
    beside the tensors or in the run's folder.
    """
    snapshot = read_checkpoint(path)
    if config is not None:
        return StoredCheckpoint(path, snapshot, load(config))
    files = [path / CONFIG_FILE]
    if path.parent.name == CHECKPOINTS:
        files.append(path.parent.parent / CONFIG_FILE)
    for file in files:
        if file.exists():
            try:
                return StoredCheckpoint(path, snapshot, load(file))
            except ConfigError as error:
                reason = f"its configuration is not valid any more ({str(error).splitlines()[0]})"
                return StoredCheckpoint(path, snapshot, None, reason)
    return StoredCheckpoint(path, snapshot, None, f"there is no {CONFIG_FILE} with it or its run")


def network_of(config: Config, weights: Tensors, path: Path) -> nn.Module:
    """Build the configured network with `weights`, in evaluation mode, on the CPU.

    Its batch norm is the ordinary one: in evaluation grouped batch norm is the same. Raises
    `ValueError` if names or shapes are not those of the configured network.
    """
    bias = weights.get("fc.bias")
    if bias is None or bias.ndim != 1:
        raise ValueError(f"{path}: no fc.bias with a value for each class; this is no network")
    model = replace(config.model, batch_norm_group=None)
    with torch.device("meta"):
        network = build(model, classes=len(bias), generator_seed=config.seed)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} is not the {config.model.name} of its configuration: {name} is"
                f" {found.get(name, 'missing')} and not {expected.get(name, 'there')};"
                " name the right one with --config FILE"
            )
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def is_statistic(name: str) -> bool:
    """Whether a tensor of a network is batch norm's record of what it saw, and no parameter."""
    return name.rpartition(".")[2] in STATISTICS


def _of_step(found: list[Path], step: int) -> Path:
    steps = {int(path.name[5:]): path for path in found}
    if step not in steps:
        have = ", ".join(map(str, steps))
        raise ValueError(f"{found[0].parent} has no checkpoint of step {step}; it has {have}")
    return steps[step]


def _best(found: list[Path], place: Path, warn: Callable[[str], None]) -> Path:
    """The checkpoint with the lowest top-1 error, the earliest if there are several."""
    errors: list[tuple[float, Path]] = []
    for path in found:
        try:
            progress = read_progress(path)
        except (OSError, ValueError) as error:
            warn(f"{path / PROGRESS} cannot be read ({error}); passed over")
            continue
        if progress.top1_error_percent is not None:
            errors.append((progress.top1_error_percent, path))
    if not errors:
        raise ValueError(f"{place}: none of its checkpoints was evaluated; choose with --step N")
    return min(errors)[1]
