"""Folders of runs, found by what lies in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.folder import CHECKPOINT_MARK, CONFIG_FILE

SWEEP = "sweep.json"
"""What the folder of a sweep has, which holds the runs of its points."""
CANCELLED = "cancelled"
"""RUN_DIR/cancelled says that the run shall stop, and not come back."""


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run; a checkpoint has a configuration, too."""
    return (folder / CONFIG_FILE).is_file() and not (folder / CHECKPOINT_MARK).exists()


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return the runs in the folders `places`, or that these are themselves, in order of name.

    Those of a sweep stand in a folder of their own.

    Raises `ValueError` for a place that is not there.
    """
    found: list[Path] = []
    for place in places:
        if is_run(place):
            found.append(place)
        elif place.is_dir():
            inside = [*place.iterdir(), *(run for each in _sweeps(place) for run in each.iterdir())]
            found += sorted(folder for folder in inside if is_run(folder))
        else:
            raise ValueError(f"{place} is not there; name a run's folder, or one that holds runs")
    return found


def runs_dir_of(run_dir: Path) -> Path:
    """Return the folder that runs and sweeps are in, of which `run_dir` is one or in one."""
    return run_dir.parents[1] if (run_dir.parent / SWEEP).exists() else run_dir.parent


def _sweeps(place: Path) -> list[Path]:
    return [record.parent for record in place.glob(f"*/{SWEEP}")]


def expect_run(place: Path) -> Path:
    """Return the folder of the run that `place` is; raise `ValueError` if it is none."""
    if not is_run(place):
        raise ValueError(
            f"{place} is no run's folder (it has no {CONFIG_FILE}); launch/status.py lists the runs"
        )
    return place.resolve()


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """The newest checkpoint of a run; nobody has looked whether it is whole."""

    step: int
    saved_at: float
    """Seconds, as `time.time` gives them."""
    path: Path


def saved_checkpoint(run_dir: Path) -> SavedCheckpoint | None:
    """Return the newest checkpoint of a run, or None; loads no torch, which takes seconds."""
    folders = (run_dir / "checkpoints").glob("step-*")
    steps = {int(path.name[5:]): path for path in folders if path.name[5:].isdecimal()}
    if not steps:
        return None
    step = max(steps)
    try:
        return SavedCheckpoint(step, steps[step].stat().st_mtime, steps[step])
    except FileNotFoundError:  # removed meanwhile, since a newer one is there
        return saved_checkpoint(run_dir)


def saved_step(run_dir: Path) -> int:
    """Return the step of the newest checkpoint of a run; 0 if there is none."""
    saved = saved_checkpoint(run_dir)
    return saved.step if saved else 0
