"""The overhead of the training loop, compared with a hand-written loop for one process."""

import itertools
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional as F

from launch.benchmarks.turns import Side
from pipeline.checkpoint import Checkpoints
from pipeline.config.schema import Config, Synthetic
from pipeline.dataset.split import Split, open_split
from pipeline.distributed.world import World
from pipeline.engines.numerics import AUTOCAST_DTYPES
from pipeline.job import Job, open_images
from pipeline.loop import report, train_step
from pipeline.models import build
from pipeline.optim.build import build_optimizer
from pipeline.plan import make_plan
from pipeline.tracking.tracker import Tracker
from pipeline.train import assemble


def overhead_sides(config: Config, world: World) -> dict[str, Side]:
    """Return two sides that train the same network on one random batch, without loading images."""
    config = replace(config, data=replace(config.data, loader=Synthetic()))
    split = open_split(config.data)
    return {"our loop": _our_loop(config, split, world), "bare loop": _bare_loop(config, split)}


def _our_loop(config: Config, split: Split, world: World) -> Side:
    """Return a side that does everything the loop does in a step, and reports once per turn."""
    plan = make_plan(config, samples=len(split.train), world_size=world.size)
    job = Job(config, world, split, plan)
    loader = open_images(job)
    nowhere = Checkpoints(Path(), keep_last=1, keep_best=False, saved=print, warn=print)
    run = assemble(job, loader, nowhere, Tracker([]))
    stream = loader.train(range(1, 1_000_000)).__enter__()
    steps = itertools.count(1)

    def train(batches: int) -> None:
        for step in islice(steps, batches):
            train_step(run, stream, step)
        report(run, next(steps) - 1, replaced=0)

    return train


def _bare_loop(config: Config, split: Split) -> Side:
    """Return a side with a hand-written loop."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classes, size = len(split.train.manifest.classes), config.data.train.size
    network = build(config.model, classes=classes, generator_seed=config.seed).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, config.optim)
    shape = (config.train.global_batch, size, size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, classes, shape[:1], device=device)
    mean = torch.tensor(config.data.mean, device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(config.data.std, device=device).view(1, 3, 1, 1) * 255
    dtype = AUTOCAST_DTYPES[config.train.precision]
    enabled = dtype != torch.float32

    def train(batches: int) -> None:
        loss = torch.zeros(())
        for _ in range(batches):
            with torch.autocast(device.type, dtype, enabled=enabled):
                pixels = images.permute(0, 3, 1, 2).float().sub_(mean).div_(std)
                logits = network(pixels).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=config.train.label_smoothing)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()

    return train
