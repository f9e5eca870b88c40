"""What training and evaluation make of a few images, by the loader that serves them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.schema import Config, Dali, Shuffled, Windowed
from pipeline.dataset.index import Index
from pipeline.dataset.order import permute, training_places
from pipeline.dataset.split import Split
from pipeline.dataset.windows import WindowedOrder
from pipeline.distributed.world import World
from pipeline.loaders.dali import DaliLoader

EVALUATION_BATCH = 64

Samples = NDArray[np.int64]
Pixels = NDArray[np.uint8]


def first_samples(index: Index, config: Config, count: int) -> Samples:
    """Return the first `count` samples that training sees, or all that there are."""
    samples, batch = min(count, len(index)), config.train.global_batch
    steps = range(1, -(-samples // batch) + 1)
    seen = [_training_samples(index, config, step) for step in steps]
    return np.concatenate(seen)[:samples]


def training_views(index: Index, config: Config, samples: Samples, epochs: int) -> Pixels:
    """Return how training sees each sample in its first epochs.

    They are uint8 of shape (samples, epochs, size, size, 3), to the pixel those of the stream. A
    view depends on the seed, the sample and the epoch alone; so the order in which the images come
    here, one a step, is chosen such that it tells at once where each one is.
    """
    loader = _open_loader(config, Split(index, index), global_batch=1)
    size = config.data.train.size
    views = np.empty((len(samples), epochs, size, size, 3), np.uint8)
    for epoch in range(epochs):
        steps = _steps_in_epoch(samples, len(index), config.seed, epoch)
        for at, run in _runs(steps):
            with loader.train(run) as stream:
                for place, batch in zip(at, stream, strict=True):
                    views[place, epoch] = batch.images[0].numpy()
    return views


def evaluation_views(index: Index, config: Config, samples: Samples) -> Pixels:
    """Return how evaluation sees each sample: uint8 of shape (samples, size, size, 3)."""
    few = replace(index, table=index.table.take(samples).combine_chunks())
    with _open_loader(config, Split(few, few), global_batch=1).evaluate() as stream:
        return torch.cat([batch.images for batch in stream]).numpy()


def _training_samples(index: Index, config: Config, step: int) -> Samples:
    seed, batch = config.seed, config.train.global_batch
    match config.data.order:
        case Shuffled():
            places = training_places(step, samples=len(index), seed=seed, global_batch=batch)
        case Windowed() as spec:
            places = WindowedOrder(index.stored, spec, seed, batch).training_places(step)
    return places.samples


def _steps_in_epoch(samples: Samples, count: int, seed: int, epoch: int) -> Samples:
    """At which step of one image each of these comes, of `count` samples shuffled as a whole."""
    order = permute(np.arange(count), count, seed=seed, epoch=epoch)
    places = np.empty_like(order)
    places[order] = np.arange(count)
    return epoch * count + places[samples] + 1


def _runs(steps: Samples) -> Iterator[tuple[Samples, range]]:
    """Yield consecutive steps, and where in `steps` they are: starting a stream takes its time."""
    rising = np.argsort(steps)
    for at in np.split(rising, np.flatnonzero(np.diff(steps[rising]) != 1) + 1):
        yield at, range(int(steps[at[0]]), int(steps[at[-1]]) + 1)


def _open_loader(config: Config, split: Split, *, global_batch: int) -> DaliLoader:
    """Open training's loader on the CPU; an image that cannot be decoded is an error."""
    given = config.data.loader
    loader = replace(given, decode="cpu") if isinstance(given, Dali) else Dali(decode="cpu")
    data = replace(config.data, loader=loader, order=Shuffled(), on_corrupt="fail")
    return DaliLoader(
        loader,
        data,
        split,
        seed=config.seed,
        global_batch=global_batch,
        batch_per_rank=EVALUATION_BATCH,
        world=World(),
    )
