"""A checkpoint that was read: its weights, network, configuration and dataset."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from pipeline.checkpoint import (
    EMA,
    MODEL,
    Snapshot,
    Tensors,
    TrainedOn,
    read_checkpoint,
    trained_on,
)
from pipeline.config.load import ConfigError, load, load_saved
from pipeline.config.schema import Config
from pipeline.models import build
from pipeline.runs.folder import CONFIG_FILE
from pipeline.weights.find import CHECKPOINTS

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps besides its parameters."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint all of whose files match their hashes."""

    path: Path
    snapshot: Snapshot
    config: Config | None
    """The run's, or the given one; None if neither can be read."""
    why_no_config: str = ""

    @property
    def run(self) -> Path | None:
        """The folder of the run that saved it; None if it was copied elsewhere."""
        return self.path.parent.parent if self.path.parent.name == CHECKPOINTS else None

    @property
    def dataset(self) -> TrainedOn | None:
        """What it was trained on; None if the checkpoint is older than that document."""
        return trained_on(self.snapshot)

    @property
    def has_ema(self) -> bool:
        return EMA in self.snapshot.tensors

    def require_config(self) -> Config:
        """Return the configuration, or raise `ValueError` with the remedy."""
        if self.config is None:
            raise ValueError(f"{self.path}: {self.why_no_config}; name one with --config FILE")
        return self.config

    def weights(self, *, live: bool) -> Tensors:
        """Return everything that the network needs, by name: the moving average if there is one.

        `live` returns the trained weights instead. Tensors that an average lacks, such as counts of
        batches, come from those.
        """
        model, average = self.snapshot.tensors[MODEL], self.snapshot.tensors.get(EMA, {})
        if unknown := average.keys() - model.keys():
            raise ValueError(f"{self.path}: its average has {min(unknown)}, which its model lacks")
        return model if live else model | average

    def network(self, *, live: bool) -> nn.Module:
        """Return its network, in evaluation mode, on the CPU; see `weights` and `build_network`."""
        return build_network(self.require_config(), self.weights(live=live), self.path)


def open_stored(path: Path, config: Path | None = None) -> StoredCheckpoint:
    """Read and verify the checkpoint in the folder `path`.

    Its configuration is the file `config`, or else the one beside the tensors or in the run's
    folder. Raises `CheckpointError` if anything is damaged, `ConfigError` if `config` is not valid.
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
                return StoredCheckpoint(path, snapshot, load_saved(file))
            except ConfigError as error:
                reason = f"its configuration is no longer valid ({str(error).splitlines()[0]})"
                return StoredCheckpoint(path, snapshot, None, reason)
    return StoredCheckpoint(path, snapshot, None, f"neither it nor its run has a {CONFIG_FILE}")


def build_network(config: Config, weights: Tensors, path: Path) -> nn.Module:
    """Return the configured network with `weights`, in evaluation mode, on the CPU.

    Its batch norm is the ordinary one: in evaluation, grouped batch norm gives the same. Raises
    `ValueError`, which names `path`, if names or shapes are not those of the configured network.
    """
    bias = weights.get("fc.bias")
    if bias is None or bias.ndim != 1:
        raise ValueError(f"{path}: not a network; fc.bias with a value for each class is missing")
    model = replace(config.model, batch_norm_group=None)
    # Not on the meta device: random numbers there load torch's compiler, which takes seconds.
    network = build(model, classes=len(bias), generator_seed=config.seed)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} is not the {config.model.name} of its configuration: {name} is"
                f" {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')};"
                " name the right one with --config FILE"
            )
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def is_statistic(name: str) -> bool:
    """Whether a tensor is one of batch norm's running statistics, and not a parameter."""
    return name.rpartition(".")[2] in STATISTICS
