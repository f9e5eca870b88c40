"""How long saving a checkpoint delays training: in the background, and with waiting.

Both ways take turns, with the same folder and code: the second is a save in the background and a
wait for it. No dataset is needed: the network trains on one random batch.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F

from pipeline.checkpoint import Checkpoints, Progress, Snapshot, Tensors, tensor_groups
from pipeline.config.schema import Config
from pipeline.engines.base import is_compiled
from pipeline.engines.numerics import AUTOCAST_DTYPES
from pipeline.models import build, count_parameters
from pipeline.models.input import Normalized
from pipeline.optim.build import build_optimizer
from pipeline.optim.ema import WeightAverage
from pipeline.optim.slots import optimizer_slots
from pipeline.system.command import plural

CLASSES = 1000


@dataclass(frozen=True)
class Training:
    """A training step and the state that it changes."""

    step: Callable[[], None]
    state: Mapping[str, Tensors]
    parameters: int

    @property
    def megabytes(self) -> float:
        return sum(tensor.nbytes for each in self.state.values() for tensor in each.values()) / 1e6


@dataclass(frozen=True)
class Times:
    """Measured times in seconds."""

    steps: list[float] = field(default_factory=list[float])
    """Steps while nothing is written."""
    disturbed_steps: list[float] = field(default_factory=list[float])
    """Steps that started and ended while a checkpoint was written."""
    stalls: list[float] = field(default_factory=list[float])
    """The call that saves in the background; the first one also allocates the host memory."""
    waits: list[float] = field(default_factory=list[float])
    """The same call, and the wait for its write."""


def compare_saves(config: Config, device: torch.device, folder: Path, *, rounds: int) -> None:
    """Print what a save costs, in ms and in steps; the checkpoints are deleted.

    Raises `ValueError` if `rounds` is less than 2, or `folder` is not writable.
    """
    if rounds < 2:
        raise ValueError(
            f"--rounds {rounds}: must be at least 2, because the first save is shown separately"
        )
    training = open_training(config, device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="checkpoint-stall-") as scratch:
            times = measure(training, Path(scratch), device, rounds=rounds)
    except OSError as error:
        raise ValueError(f"--folder {folder} is not writable: {error}") from error
    print(f"{config.model.name}, {plural(training.parameters, 'parameter')}, on {device.type}")
    print(f"state: {training.megabytes:,.0f} MB ({', '.join(training.state)})")
    print("\n".join(table(times)))


def open_training(config: Config, device: torch.device) -> Training:
    """Build the network, its optimiser and EMA, if configured, as a run of one rank does."""
    network = build(config.model, classes=CLASSES, generator_seed=config.seed).to(device)
    train, data = config.train, config.data
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    network.to(memory_format=layout)  # changing the layout slows the copy to the host
    module = Normalized(network, mean=data.mean, std=data.std, channels_last=train.channels_last)
    forward = module.to(device)
    if is_compiled(train.compile, device):
        forward = torch.compile(forward)
    optimizer = build_optimizer(network, config.optim)
    average = WeightAverage(network, decay=train.ema.decay, every_steps=1) if train.ema else None
    shape = (train.global_batch, data.train.size, data.train.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, shape[:1], device=device)
    dtype = AUTOCAST_DTYPES[train.precision]

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = forward(images).float()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average:
            average.update(1)

    slots = optimizer_slots(optimizer, network)
    groups = tensor_groups(network.state_dict(), slots, average.average if average else None)
    return Training(step, groups, count_parameters(network))


def measure(training: Training, folder: Path, device: torch.device, *, rounds: int) -> Times:
    """Save `rounds` times each way, with steps in between; raise `OSError` if a write fails."""
    times = Times()
    with Checkpoints(
        folder,
        keep_last=1,
        keep_best=False,
        saved=lambda _step, _path, _seconds: None,
        warn=_fail,
    ) as checkpoints:

        def save(number: int) -> None:
            progress = Progress(step=number, fingerprint="", seed=0, global_batch=1)
            checkpoints.save(Snapshot(training.state, progress))

        def save_and_wait(number: int) -> None:
            save(number)
            checkpoints.wait()

        for _ in range(2):  # compiles and warms up
            training.step()
        for number in range(1, 2 * rounds, 2):
            times.steps.append(_seconds(training.step, device))
            times.stalls.append(_seconds(lambda at=number: save(at), device))
            while _writes(checkpoints):
                seconds = _seconds(training.step, device)
                if _writes(checkpoints):
                    times.disturbed_steps.append(seconds)
            checkpoints.wait()  # old ones are deleted by then: the next save finds a quiet disk
            times.steps.append(_seconds(training.step, device))
            times.waits.append(_seconds(lambda at=number + 1: save_and_wait(at), device))
    return times


def table(times: Times) -> list[str]:
    """Return a line for each kind: milliseconds, and their median in undisturbed steps."""
    step = statistics.median(times.steps)
    rows = [
        ("step", times.steps),
        ("step while a checkpoint is written", times.disturbed_steps),
        ("first save in the background", times.stalls[:1]),
        ("later saves in the background", times.stalls[1:]),
        ("save and wait", times.waits),
    ]
    lines = [f"{'ms':40} {'min / median / max':>30}    steps"]
    for name, seconds in rows:
        if not seconds:
            lines.append(f"{name:40} {'none: the write was shorter':>30}")
            continue
        spread = (min(seconds), statistics.median(seconds), max(seconds))
        text = " / ".join(f"{1000 * each:,.1f}" for each in spread)
        lines.append(f"{name:40} {text:>30} {spread[1] / step:8.3f}")
    return lines


def _writes(checkpoints: Checkpoints) -> bool:
    """Whether a write is in progress."""
    try:
        checkpoints.wait(0)
    except TimeoutError:
        return True
    return False


def _fail(warning: str) -> None:
    raise OSError(warning)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
