"""The speed of loading: ours, and other loaders on the same images."""

from itertools import islice
from pathlib import Path

import torch

from launch.benchmarks.peers import Peers
from launch.benchmarks.turns import Side
from pipeline.config.schema import Config
from pipeline.dataset.split import open_split
from pipeline.distributed.world import World
from pipeline.loaders import open_loader
from pipeline.models.input import Normalized


def loader_sides(
    config: Config, world: World, folder: Path, *, workers: int, as_bytes: bool
) -> dict[str, Side]:
    """Return our side and the peers', which deliver random crops: normalised floats, or bytes.

    The peers read copies of the images in `folder`, which is empty before.
    """
    split = open_split(config.data)
    images = config.train.global_batch
    loader = open_loader(
        config.data,
        split,
        seed=config.seed,
        global_batch=images,
        batch_per_rank=images,
        world=world,
    )
    stream = iter(loader.train(range(1, 1_000_000)).__enter__())
    nothing = torch.nn.Identity()
    normalize = Normalized(nothing, mean=config.data.mean, std=config.data.std).to(world.device)

    def run_ours(batches: int) -> None:
        for batch in islice(stream, batches):
            if not as_bytes:
                normalize(batch.images)

    peers = Peers(config.data, split.train, folder, batch=images, workers=workers)
    return {"ours": run_ours, **peers.sides(world.device, as_bytes=as_bytes)}
