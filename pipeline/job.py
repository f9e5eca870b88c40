"""A run before it begins: a configuration that meets its dataset, its images and its world."""

from dataclasses import dataclass, field

from pipeline.config.schema import Config, Data
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.loaders import Loader, open_loader
from pipeline.plan import Plan
from pipeline.runs.fence import Fence
from pipeline.storage.errors import ImageError
from pipeline.storage.files import file_faults
from pipeline.system.signals import StopSignals
from pipeline.system.watchdog import Watchdog


@dataclass(frozen=True)
class Job:
    """A configuration on this dataset and in this world; everything about it is in order."""

    config: Config
    world: World
    split: Split
    plan: Plan
    signals: StopSignals = field(default_factory=StopSignals)
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(None))
    fence: Fence = field(default_factory=Fence)

    @property
    def fingerprint(self) -> str:
        return self.split.train.manifest.fingerprint


def open_images(job: Job) -> Loader:
    """Open the loader, and check the images as `data.verify` asks, each rank its share."""
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
    """Raise `ImageError` if files of the dataset are missing or changed, unless that is allowed."""
    if data.verify == "off" or data.on_corrupt == "skip":
        return
    faults = file_faults(split.train) + file_faults(split.val)
    if faults:
        raise ImageError(list(dict.fromkeys(faults)))
