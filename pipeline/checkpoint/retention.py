"""Which checkpoints of a run are kept."""

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.checkpoint.reading import read_progress, step_of


@dataclass(frozen=True, slots=True)
class Retention:
    """Keeps the `last` checkpoints, the best one, and one for every `every_steps` steps."""

    last: int
    best: bool
    every_steps: Fraction | None

    def kept(self, found: list[Path]) -> set[Path]:
        """Return which of the checkpoints `found`, oldest first, are kept."""
        keep = set(found[-self.last :])
        if self.best:
            keep |= set(_best(found))
        if self.every_steps is not None:
            keep |= _first_of_each(found, self.every_steps)
        return keep


def _best(found: list[Path]) -> list[Path]:
    """Return the checkpoint with the lowest validation top-1 error, the earliest of equals."""
    errors: list[tuple[float, Path]] = []
    for path in found:
        with suppress(OSError, ValueError):  # a damaged one cannot be the best
            error = read_progress(path).top1_error_percent
            if error is not None:
                errors.append((error, path))
    return [min(errors)[1]] if errors else []


def _first_of_each(found: list[Path], interval: Fraction) -> set[Path]:
    """Return the first checkpoint at or after each multiple of `interval`; the choice is final."""
    first: dict[int, Path] = {}
    for path in found:
        first.setdefault(step_of(path) // interval, path)
    first.pop(0, None)
    return set(first.values())
