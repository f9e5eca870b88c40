"""Two sides that take turns, so a machine whose speed drifts slows both equally."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from pipeline.system.command import plural

READY = 6
"""More batches than any side prepares in advance."""

Side = Callable[[int], None]
"""Does the work of a number of batches."""


def compare(sides: dict[str, Side], rounds: int, batches: int, images: int) -> None:
    """Let the sides take turns; print images/s of each, and the first one's ratio to the others."""
    turns: list[list[float]] = []
    for number in range(rounds + 1):
        order = list(sides) if number % 2 else list(reversed(sides))
        speeds = {name: _images_per_second(sides[name], batches, images) for name in order}
        if number:  # the first turn warms up
            turns.append([speeds[name] for name in sides])
    work = f"{plural(batches, 'batch', 'batches')} of {plural(images, 'image')} per turn"
    print(f"{work}, {plural(rounds, 'turn')}; min / median / max")
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
    side(READY)  # batches that were prepared during the last turn do not count
    started = time.perf_counter()
    side(batches)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return batches * images / (time.perf_counter() - started)
