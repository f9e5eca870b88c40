"""Sides that take turns, so a machine whose speed drifts slows all of them equally.

CPU time counts this process and its children. On a machine that is shared, or where a side has more
threads than another, it compares better than wall time.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil
import torch

from pipeline.system.command import plural

READY = 6
"""More batches than any side prepares in advance."""

Side = Callable[[int], None]
"""Does the work of a number of batches."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a side took, in ms per image."""

    wall: float
    cpu: float


def compare(sides: dict[str, Side], rounds: int, batches: int, images: int) -> None:
    """Let the sides take turns; print the speed of each, and the first one's ratio to the others.

    Ratios are of images per CPU-second, turn by turn.
    """
    rows: list[dict[str, Turn]] = []
    for number in range(rounds + 1):
        order = list(sides) if number % 2 else list(reversed(sides))
        row = {name: _measure(sides[name], batches, images) for name in order}
        if number:  # the first round warms up
            rows.append(row)
    work = f"{plural(batches, 'batch', 'batches')} of {plural(images, 'image')} per turn"
    print(f"{work}, {plural(rounds, 'turn')}; min / median / max")
    for name in sides:
        speeds = _spread([1e3 / row[name].wall for row in rows], ".1f")
        costs = _spread([row[name].cpu for row in rows], ".2f")
        print(f"{name:42} {speeds} images/s, CPU {costs} ms per image")
    first, *others = sides
    for name in others:
        ratios = [row[name].cpu / row[first].cpu for row in rows]
        print(f"{f'ratio, {first} / {name}':64} {_spread(ratios, '.3f')}")


def _spread(values: Sequence[float], form: str) -> str:
    shown = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{value:{form}}" for value in shown)


def _measure(side: Side, batches: int, images: int) -> Turn:
    side(READY)  # batches that were prepared during the last turn do not count
    started, cpu = time.perf_counter(), _cpu_seconds()
    side(batches)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    scale = 1e3 / (batches * images)
    return Turn((time.perf_counter() - started) * scale, (_cpu_seconds() - cpu) * scale)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far."""
    this = psutil.Process()
    seconds = 0.0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds
