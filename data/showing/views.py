"""A few images as training and evaluation see them, from the loader that training uses."""

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

SampleNumbers = NDArray[np.int64]
Pixels = NDArray[np.uint8]


def first_samples(index: Index, config: Config, count: int) -> SampleNumbers:
    """Return the first `count` samples that training sees, or all if there are fewer."""
    samples, batch = min(count, len(index)), config.train.global_batch
    steps = range(1, -(-samples // batch) + 1)
    seen = [_training_samples(index, config, step) for step in steps]
    return np.concatenate(seen)[:samples]


def training_views(index: Index, config: Config, samples: SampleNumbers, epochs: int) -> Pixels:
    """Return each sample as training sees it in its first epochs, pixel for pixel.

    The result is uint8 of shape (samples, epochs, size, size, 3). A view depends only on the seed,
    the sample and the epoch, so images may come in any order here: one a step, shuffled as a whole,
    which gives the step of each sample at once.
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


def evaluation_views(index: Index, config: Config, samples: SampleNumbers) -> Pixels:
    """Return each sample as evaluation sees it: uint8 of shape (samples, size, size, 3)."""
    few = replace(index, table=index.table.take(samples).combine_chunks())
    with _open_loader(config, Split(few, few), global_batch=1).evaluate() as stream:
        return torch.cat([batch.images for batch in stream]).numpy()


def _training_samples(index: Index, config: Config, step: int) -> SampleNumbers:
    seed, batch = config.seed, config.train.global_batch
    match config.data.order:
        case Shuffled():
            places = training_places(step, samples=len(index), seed=seed, global_batch=batch)
        case Windowed() as spec:
            places = WindowedOrder(index.stored, spec, seed, batch).training_places(step)
    return places.samples


def _steps_in_epoch(samples: SampleNumbers, count: int, seed: int, epoch: int) -> SampleNumbers:
    """Return the step of each sample, with `count` samples shuffled as a whole, one a step."""
    order = permute(np.arange(count), count, seed=seed, epoch=epoch)
    places = np.empty_like(order)
    places[order] = np.arange(count)
    return epoch * count + places[samples] + 1


def _runs(steps: SampleNumbers) -> Iterator[tuple[SampleNumbers, range]]:
    """Yield ranges of consecutive steps and their places in `steps`: starting a stream is slow."""
    rising = np.argsort(steps)
    for at in np.split(rising, np.flatnonzero(np.diff(steps[rising]) != 1) + 1):
        yield at, range(int(steps[at[0]]), int(steps[at[-1]]) + 1)


def _open_loader(config: Config, split: Split, *, global_batch: int) -> DaliLoader:
    """Open the loader of training on the CPU; an image that cannot be decoded is an error."""
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
