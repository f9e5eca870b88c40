"""Which checkpoint is meant: a run's newest, its best, that of a step, or a folder itself."""

from collections.abc import Callable
from pathlib import Path

from pipeline.checkpoint import (
    MODEL,
    PROGRESS,
    list_checkpoints,
    newest_checkpoint,
    read_progress,
)
from pipeline.runs.find import lost_final_checkpoint

CHECKPOINTS = "checkpoints"


def find_all(place: Path) -> list[Path]:
    """Return the checkpoints of the run `place`, oldest first, or `place` if it is a checkpoint.

    Raises `ValueError` if it is neither, or if the run has no checkpoint yet.
    """
    folder = place / CHECKPOINTS if (place / CHECKPOINTS).is_dir() else place
    if found := list_checkpoints(folder):
        return found
    if folder != place:
        lost = lost_final_checkpoint(place)
        raise ValueError(lost or f"{place} has no checkpoint yet; see checkpoint.every_epochs")
    marks = (PROGRESS, f"{MODEL}.safetensors")
    if place.is_dir() and (
        place.name.startswith("step-") or any((place / mark).exists() for mark in marks)
    ):
        return [place]
    what = "is neither a run folder nor a checkpoint" if place.exists() else "does not exist"
    raise ValueError(f"{place} {what}; name a run, or RUN/checkpoints/step-N")


def find_one(
    place: Path, *, step: int | None = None, best: bool = False, warn: Callable[[str], None]
) -> Path:
    """Return one checkpoint of `place`: that of `step`, the best, or the newest undamaged one.

    Damaged checkpoints are skipped with a warning; there is another if the run is finished and its
    final checkpoint is missing. Raises `ValueError` if nothing is left.
    """
    found = find_all(place)
    if found == [place]:
        if step is not None or best:
            raise ValueError(f"{place} is one checkpoint; --step and --best choose from a run")
        return place
    if lost := lost_final_checkpoint(found[0].parent.parent):
        warn(lost)
    if step is not None:
        return _of_step(found, step)
    if best:
        return _best(found, place, warn)
    newest = newest_checkpoint(found[0].parent, warn)
    if newest is None:
        raise ValueError(f"{place} has no whole checkpoint ({len(found)} damaged)")
    return newest


def _of_step(found: list[Path], step: int) -> Path:
    steps = {int(path.name[5:]): path for path in found}
    if step not in steps:
        have = ", ".join(map(str, steps))
        raise ValueError(f"{found[0].parent} has no checkpoint of step {step}; it has {have}")
    return steps[step]


def _best(found: list[Path], place: Path, warn: Callable[[str], None]) -> Path:
    """The checkpoint with the lowest top-1 error, the earliest of equals."""
    errors: list[tuple[float, Path]] = []
    for path in found:
        try:
            progress = read_progress(path)
        except (OSError, ValueError) as error:
            warn(f"{path / PROGRESS} cannot be read ({error}); skipped")
            continue
        if progress.top1_error_percent is not None:
            errors.append((progress.top1_error_percent, path))
    if not errors:
        raise ValueError(f"{place}: none of its checkpoints was evaluated; choose with --step N")
    return min(errors)[1]
