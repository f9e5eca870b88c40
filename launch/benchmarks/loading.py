"""The speed of loading: DALI, and torchvision with torch's DataLoader."""

from collections.abc import Callable
from io import BytesIO
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from launch.benchmarks.turns import Side
from pipeline.config.schema import Config, PadCrop, RandomResizedCrop
from pipeline.dataset.index import Index
from pipeline.dataset.split import open_split
from pipeline.distributed.world import World
from pipeline.loaders import open_loader
from pipeline.models.input import Normalized
from pipeline.system.command import plural

ENDLESS = 10**9
"""Images of one epoch of the peer: at the end of an epoch its workers would run out of work."""


class PlainImages(Dataset[Any]):
    """The same images, read as torchvision's ImageFolder reads them: with PIL, one at a time."""

    def __init__(self, index: Index, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self._index, self._transform = index, transform

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        with self._index.path(at).open("rb", buffering=0) as stream:
            stream.seek(int(self._index.offsets[at]))
            content = stream.read(int(self._index.sizes[at]))
        with Image.open(BytesIO(content)) as image:
            return self._transform(image.convert("RGB")), int(self._index.labels[at])


def loader_sides(config: Config, world: World, workers: int, *, as_bytes: bool) -> dict[str, Side]:
    """Return two sides that deliver random crops: as normalised floats, or as bytes."""
    split = open_split(config.data)
    images, mean, std = config.train.global_batch, config.data.mean, config.data.std
    ours = open_loader(
        config.data,
        split,
        seed=config.seed,
        global_batch=images,
        batch_per_rank=images,
        world=world,
    )
    stream = iter(ours.train(range(1, 1_000_000)).__enter__())
    normalize = Normalized(torch.nn.Identity(), mean=mean, std=std).to(world.device)
    plain = iter(_plain_loader(config, split.train, workers, as_bytes=as_bytes))

    def run_ours(batches: int) -> None:
        for batch in islice(stream, batches):
            if not as_bytes:
                normalize(batch.images)

    def run_plain(batches: int) -> None:
        for pixels, _labels in islice(plain, batches):
            pixels.to(world.device)

    return {"DALI": run_ours, f"torchvision DataLoader, {plural(workers, 'worker')}": run_plain}


def _plain_loader(config: Config, index: Index, workers: int, *, as_bytes: bool) -> DataLoader[Any]:
    from torchvision import transforms

    match config.data.train:
        case RandomResizedCrop(size=size, scale=scale, ratio=ratio):
            crop = transforms.RandomResizedCrop(size, scale=scale, ratio=ratio)
        case PadCrop(size=size, pad=pad):
            crop = transforms.RandomCrop(size, padding=pad)
    normalize = transforms.Normalize(config.data.mean, config.data.std)
    floats = [transforms.ToTensor(), normalize]
    deliver = [transforms.PILToTensor()] if as_bytes else floats
    transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *deliver])
    images = PlainImages(index, transform)
    return DataLoader(
        images,
        batch_size=config.train.global_batch,
        sampler=RandomSampler(images, num_samples=ENDLESS),
        num_workers=workers,
    )
