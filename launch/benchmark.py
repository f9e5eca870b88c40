"""Measure the speed of the parts, each side by side with a plain alternative in one run.

    python launch/benchmark.py loader CONFIG [a.b=c ...]     DALI against torchvision's DataLoader
    python launch/benchmark.py overhead CONFIG [a.b=c ...]   the training loop against a bare one
    python launch/benchmark.py checkpoint CONFIG [a.b=c ...] saving in the background, and waiting

Both sides take turns, so that a machine whose speed drifts slows both alike: quote the ratio.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from launch.benchmarks.checkpoint_stall import compare_saves
from pipeline.checkpoint import Checkpoints
from pipeline.config.load import load
from pipeline.config.schema import Config, PadCrop, RandomResizedCrop, Synthetic
from pipeline.dataset.index import Index
from pipeline.dataset.split import Split, open_split
from pipeline.distributed.world import World, join_world
from pipeline.engines.numerics import AUTOCAST_DTYPES
from pipeline.loaders import open_loader
from pipeline.loop import report, train_step
from pipeline.models import build
from pipeline.models.input import Normalized
from pipeline.optim.build import build_optimizer
from pipeline.plan import make_plan
from pipeline.tracking.tracker import Tracker
from pipeline.train import (
    Job,
    assemble,
    open_images,
    set_up_torch,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake."""
    parser = argparse.ArgumentParser(prog="python launch/benchmark.py", description=__doc__)
    parser.add_argument("what", choices=("loader", "overhead", "checkpoint"))
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--batches", type=int, default=10, help="batches of a turn (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes (default 2)")
    parser.add_argument("--bytes", action="store_true", help="deliver bytes, as a GPU wants them")
    parser.add_argument("--folder", type=Path, help="for checkpoints (default: runs_dir)")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load(options.config, options.overrides)
        with join_world() as world:
            set_up_torch(deterministic=config.train.deterministic, world=world)
            if options.what == "checkpoint":
                folder = options.folder or config.runs_dir
                compare_saves(config, world.device, folder, rounds=options.rounds)
                return 0
            sides = (
                loader_sides(config, world, options.workers, as_bytes=options.bytes)
                if options.what == "loader"
                else overhead_sides(config, world)
            )
            compare(sides, options.rounds, options.batches, config.train.global_batch)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


READY = 6
"""More batches than any side prepares ahead."""

Side = Callable[[int], None]
"""Does the work of that many batches."""


def compare(sides: dict[str, Side], rounds: int, batches: int, images: int) -> None:
    """Let the sides take turns; print images/s of each, and of the first over each other."""
    turns: list[list[float]] = []
    for number in range(rounds + 1):
        order = list(sides) if number % 2 else list(reversed(sides))
        speeds = {name: _images_per_second(sides[name], batches, images) for name in order}
        if number:  # the first turn warms up
            turns.append([speeds[name] for name in sides])
    print(f"{batches} batches of {images} images a turn, {rounds} turns; min / median / max")
    for name, values in zip(sides, zip(*turns, strict=True), strict=True):
        print(f"{name:50} {_spread(values, '.1f')} images/s")
    first, *others = sides
    for at, name in enumerate(others, start=1):
        ratios = [turn[0] / turn[at] for turn in turns]
        print(f"{f'ratio, {first} / {name}':50} {_spread(ratios, '.3f')}")


def _spread(values: Sequence[float], form: str) -> str:
    shown = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{value:{form}}" for value in shown)


def _images_per_second(side: Side, batches: int, images: int) -> float:
    side(READY)  # what lay ready from the turn before is not counted
    started = time.perf_counter()
    side(batches)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return batches * images / (time.perf_counter() - started)


# -------------------------------------------------------------------------------------- loader


class PlainImages(Dataset[Any]):
    """The same images as ImageFolder would read them: PIL, one at a time."""

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
    """Both deliver random crops of the training images: normalised floats, or plain bytes."""
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
    plain = _endless(_plain_loader(config, split.train, workers, as_bytes=as_bytes))

    def run_ours(batches: int) -> None:
        for batch in islice(stream, batches):
            if not as_bytes:
                normalize(batch.images)

    def run_plain(batches: int) -> None:
        for pixels, _labels in islice(plain, batches):
            pixels.to(world.device)

    return {"DALI": run_ours, f"torchvision DataLoader, {workers} workers": run_plain}


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
    return DataLoader(
        PlainImages(index, transform),
        batch_size=config.train.global_batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


# ------------------------------------------------------------------------------------ overhead


def overhead_sides(config: Config, world: World) -> dict[str, Side]:
    """Both train the same network on the same random batch, without loading or evaluating."""
    config = replace(config, data=replace(config.data, loader=Synthetic()))
    split = open_split(config.data)
    return {"our loop": _our_loop(config, split, world), "bare loop": _bare_loop(config, split)}


def _our_loop(config: Config, split: Split, world: World) -> Side:
    """All that the loop does at each step, and a report at the end of each turn."""
    plan = make_plan(config, samples=len(split.train), world_size=world.size)
    job = Job(config, world, split, plan)
    loader = open_images(job)
    nowhere = Checkpoints(Path(), keep_last=1, keep_best=False, saved=print, warn=print)
    run = assemble(job, loader, nowhere, Tracker([], None, ""))
    stream = loader.train(range(1, 1_000_000)).__enter__()
    steps = itertools.count(1)

    def train(batches: int) -> None:
        for step in islice(steps, batches):
            train_step(run, stream, step)
        report(run, next(steps) - 1, replaced=0)

    return train


def _bare_loop(config: Config, split: Split) -> Side:
    """What one would write by hand for one process."""
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


if __name__ == "__main__":
    raise SystemExit(main())
