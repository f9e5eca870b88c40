"""Shortcuts to the streams of a DALI loader, for tests."""

from pathlib import Path
from typing import Literal

import torch

from pipeline.config.schema import Dali, Data, PadCrop, RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices, training_places
from pipeline.dataset.split import Split
from pipeline.distributed.world import CPU, World
from pipeline.loaders import Batch, Loader, open_loader

SEED, BATCH = 5, 12
TRAIN, EVAL = RandomResizedCrop(size=16), ResizeCenterCrop(resize=20, size=16)


def open_split(folder: Path) -> Split:
    return Split(Index.open(folder, "train"), Index.open(folder, "val"))


def dali(
    folder: Path,
    *,
    part: tuple[int, int] = (0, 1),
    crop: RandomResizedCrop | PadCrop = TRAIN,
    evaluation: ResizeCenterCrop = EVAL,
    on_corrupt: Literal["fail", "skip"] = "fail",
    batch_per_rank: int = 7,
    spec: Dali | None = None,
    device: torch.device = CPU,
) -> Loader:
    """The loader of rank `part[0]` of `part[1]`; two decoding threads by default."""
    data = Data(
        dir=folder,
        train=crop,
        eval=evaluation,
        loader=spec or Dali(threads=2),
        on_corrupt=on_corrupt,
    )
    return open_loader(
        data,
        open_split(folder),
        seed=SEED,
        global_batch=BATCH,
        batch_per_rank=batch_per_rank,
        world=World(rank=part[0], size=part[1], device=device),
    )


def indices(folder: Path, step: int) -> BatchIndices:
    """The samples and epochs of a training step."""
    samples = len(open_split(folder).train)
    return training_places(step, samples=samples, seed=SEED, global_batch=BATCH)


def trained(loader: Loader, first: int, last: int) -> list[Batch]:
    with loader.train(range(first, last + 1)) as stream:
        return list(stream)


def evaluated(loader: Loader) -> list[Batch]:
    with loader.evaluate() as stream:
        return list(stream)


def joined(batches: list[Batch]) -> Batch:
    images = torch.cat([batch.images for batch in batches])
    return Batch(images, torch.cat([batch.labels for batch in batches]))


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def native_threads() -> int:
    """Threads of this process, DALI's included."""
    return len(list(Path("/proc/self/task").iterdir()))
