"""What a run is made of: a configuration on its dataset and ranks, and the parts built from it."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.checkpoint import Checkpoints, TrainedOn
from pipeline.config.schema import Config, Data
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.engines import Engine, Trainable, open_engine
from pipeline.loaders import Loader, open_loader
from pipeline.losses import build_loss
from pipeline.models import build
from pipeline.models.input import Normalized
from pipeline.optim.build import build_optimizer
from pipeline.optim.schedule import in_steps
from pipeline.plan import Plan, doubts
from pipeline.runs.fence import Fence
from pipeline.runs.precision import slow_precision
from pipeline.storage.errors import ImageError
from pipeline.storage.files import file_faults
from pipeline.system.signals import StopSignals
from pipeline.system.watchdog import Watchdog
from pipeline.tracking import events
from pipeline.tracking.tracker import Tracker


@dataclass(frozen=True)
class Job:
    """A valid configuration, with its dataset, its place among the ranks and its plan."""

    config: Config
    world: World
    split: Split
    plan: Plan
    signals: StopSignals = field(default_factory=StopSignals)
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(None))
    fence: Fence = field(default_factory=Fence)

    @property
    def dataset(self) -> TrainedOn:
        manifest = self.split.train.manifest
        return TrainedOn(
            manifest.name, manifest.fingerprint, manifest.classes, manifest.class_names
        )


def find_doubts(job: Job) -> list[str]:
    """Return likely mistakes in a job that could run. A collective."""
    slow = job.world.gather(slow_precision(job.config.train.precision, job.world.device))
    return [*doubts(job.config, job.plan), *sorted(set(filter(None, slow)))]


def open_images(job: Job) -> Loader:
    """Open the loader, and check the images as `data.verify` says, each rank its share.

    Raises `ImageError`, on all ranks, if images are missing, changed or corrupt.
    """
    config, split, world = job.config, job.split, job.world
    loader = open_loader(
        config.data,
        split,
        seed=config.seed,
        global_batch=config.train.global_batch,
        batch_per_rank=config.evaluate.batch_per_rank,
        world=world,
    )
    world.broadcast_from_main(lambda: expect_files(config.data, split))
    if config.data.verify == "decode" and config.data.on_corrupt == "fail":
        faults = [fault for share in world.gather(loader.verify()) for fault in share]
        if faults:
            raise ImageError(list(dict.fromkeys(faults)))
    return loader


def expect_files(data: Data, split: Split) -> None:
    """Raise `ImageError` if files of the dataset are missing or changed, unless this is allowed."""
    if data.verify == "off" or data.on_corrupt == "skip":
        return
    faults = file_faults(split.train) + file_faults(split.val)
    if faults:
        raise ImageError(list(dict.fromkeys(faults)))


def build_trainable(job: Job) -> Trainable:
    """Build the network with its first weights, its optimiser and its loss, on the device."""
    config, device = job.config, job.world.device
    channels_last = config.train.channels_last
    classes = len(job.split.train.manifest.classes)
    network = build(config.model, classes=classes, generator_seed=config.seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(device).to(memory_format=layout)
    module = Normalized(
        network, mean=config.data.mean, std=config.data.std, channels_last=channels_last
    )
    return Trainable(
        module.to(device),
        network,
        build_optimizer(network, config.optim),
        build_loss(config.train),
    )


def open_job_engine(job: Job, trainable: Trainable) -> Engine:
    """Return the engine that the configuration names; raise `ValueError` if it is not installed."""
    return open_engine(
        job.config.engine,
        trainable,
        job.config.train,
        micro_batch=job.plan.micro_batch,
        image_size=job.config.data.train.size,
        world=job.world,
    )


def open_checkpoints(job: Job, folder: Path, tracker: Tracker) -> Checkpoints:
    """Open the checkpoints in the run folder `folder`; each save is reported to the trackers."""
    keep = job.config.checkpoint
    every = keep.keep_every_epochs
    return Checkpoints(
        folder / "checkpoints",
        keep_last=keep.keep_last,
        keep_best=keep.keep_best,
        keep_every_steps=in_steps(every, job.plan.steps_per_epoch) if every else None,
        fence=job.fence,
        saved=lambda step, path, seconds: tracker.emit(
            events.CheckpointSaved(step, str(path), seconds)
        ),
        warn=tracker.warn,
    )
