"""Measure how long saving a checkpoint holds training up: against a save that is waited for.

    python launch/checkpoint_stall.py CONFIG [a.b=c ...] [--folder DIR]

It needs no dataset: the network of CONFIG trains on one random batch. DIR is on the disk to be
measured (by default the configuration's `runs_dir`); what is written there is deleted.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.nn import functional as F

from pipeline.checkpoint import Checkpoints, Progress, Snapshot, Tensors, write_checkpoint
from pipeline.config.load import load
from pipeline.config.schema import Config
from pipeline.ema import WeightAverage
from pipeline.engines.autocast import AUTOCAST_DTYPES
from pipeline.models import build, count_parameters
from pipeline.optim import build_optimizer

CLASSES = 1000


@dataclass(frozen=True)
class Training:
    """A step to repeat, and the state that it changes."""

    step: Callable[[], None]
    state: Mapping[str, Tensors]
    parameters: int

    def megabytes(self) -> float:
        return sum(tensor.nbytes for each in self.state.values() for tensor in each.values()) / 1e6


@dataclass
class Times:
    """Seconds: of steps that nothing disturbs, of steps during a write, and of saves."""

    steps: list[float]
    disturbed_steps: list[float]
    stalls: list[float]
    writes: list[float]
    synchronous: list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python launch/checkpoint_stall.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c")
    parser.add_argument("--folder", type=Path, help="where to write (default: runs_dir)")
    parser.add_argument("--rounds", type=int, default=5, help="saves of each kind (default 5)")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load(options.config, options.overrides)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    folder: Path = options.folder or config.runs_dir
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = open_training(config, device)
    with tempfile.TemporaryDirectory(dir=folder, prefix="checkpoint-stall-") as scratch:
        times = measure(training, Path(scratch), rounds=options.rounds)
    print(f"{config.model.name}, {training.parameters:,} parameters, on {device.type}")
    print(f"state: {training.megabytes():,.0f} MB ({', '.join(training.state)})")
    show(times)
    return 0


def open_training(config: Config, device: torch.device) -> Training:
    """Build network, optimiser and, if configured, average; nothing is loaded."""
    network = build(config.model, classes=CLASSES, generator_seed=config.seed).to(device)
    optimizer = build_optimizer(network, config.optim)
    ema = config.train.ema
    average = WeightAverage(network, decay=ema.decay, every_steps=1) if ema else None
    size, batch = config.data.train.size, config.train.global_batch
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(0, CLASSES, (batch,), device=device)
    dtype = AUTOCAST_DTYPES[config.train.precision]

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(images).float()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average:
            average.update(1)

    momentum = {
        name: optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in network.named_parameters()
    }
    groups = {"model": network.state_dict(), "momentum": momentum}
    if average:
        groups["ema"] = average.average
    return Training(step, groups, count_parameters(network))


def measure(training: Training, folder: Path, *, rounds: int) -> Times:
    """Save `rounds` times in either way, with steps in between; the first step warms up."""
    times = Times([], [], [], [], [])
    training.step()
    writes = times.writes
    with Checkpoints(
        folder / "background",
        keep_last=1,
        keep_best=False,
        saved=lambda _step, _path, seconds: writes.append(seconds),
        warn=lambda message: print(message, file=sys.stderr),
    ) as checkpoints:
        for number in range(1, rounds + 1):
            times.steps.append(_seconds(training.step))
            progress = Progress(step=number, fingerprint="", seed=0, global_batch=1)
            snapshot = Snapshot(training.state, progress)
            times.stalls.append(_seconds(lambda each=snapshot: checkpoints.save(each)))
            while len(writes) < number:
                seconds = _seconds(training.step)
                if len(writes) < number:  # else it ended within the step
                    times.disturbed_steps.append(seconds)
            times.steps.append(_seconds(training.step))
            whole = {
                group: {name: tensor.detach().cpu().contiguous() for name, tensor in each.items()}
                for group, each in training.state.items()
            }
            held = Snapshot(whole, progress)
            times.synchronous.append(
                _seconds(lambda each=held: write_checkpoint(folder / "synchronous", each))
            )
    return times


def show(times: Times) -> None:
    """Print milliseconds, and steps that they are worth."""
    step = statistics.median(times.steps)
    rows = [
        ("a step", times.steps),
        ("a step while a checkpoint is written", times.disturbed_steps),
        ("the write, in the background", times.writes),
        ("stall of the first save", times.stalls[:1]),
        ("stall of a later save", times.stalls[1:]),
        ("a save that is waited for", times.synchronous),
    ]
    print(f"{'':40} {'min / median / max':>30}    steps")
    for name, seconds in rows:
        if seconds:
            spread = (min(seconds), statistics.median(seconds), max(seconds))
            text = " / ".join(f"{1000 * each:,.1f}" for each in spread)
            print(f"{name:40} {text:>27} ms  {spread[1] / step:6.3f}")


def _seconds(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
