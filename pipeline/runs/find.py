"""Finding run folders and their newest checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.folder import CHECKPOINT_MARK, CONFIG_FILE, RESULT, read_result

SWEEP = "sweep.json"
"""Marks the folder of a sweep, which contains the run folders of its points."""
CANCELLED = "cancelled"
"""RUN_DIR/cancelled marks a run that must stop and must not start again."""


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run folder; a checkpoint also has a configuration, but is not one."""
    return (folder / CONFIG_FILE).is_file() and not (folder / CHECKPOINT_MARK).exists()


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return the runs that each place is or contains, including runs of sweeps, sorted by name.

    Raises `ValueError` if a place does not exist.
    """
    found: list[Path] = []
    for place in places:
        if is_run(place):
            found.append(place)
        elif place.is_dir():
            inside = [*place.iterdir(), *(run for each in _sweeps(place) for run in each.iterdir())]
            found += sorted(folder for folder in inside if is_run(folder))
        else:
            raise ValueError(f"{place} does not exist; name a run folder or a folder of runs")
    return found


def runs_dir_of(run_dir: Path) -> Path:
    """Return the folder of runs that a run is in, whether directly or as part of a sweep."""
    return run_dir.parents[1] if (run_dir.parent / SWEEP).exists() else run_dir.parent


def _sweeps(place: Path) -> list[Path]:
    return [record.parent for record in place.glob(f"*/{SWEEP}")]


def expect_run(place: Path) -> Path:
    """Return the absolute path of a run folder; raise `ValueError` if `place` is not one."""
    if not is_run(place):
        raise ValueError(
            f"{place} is not a run folder ({CONFIG_FILE} is missing); launch/status.py lists the"
            " runs"
        )
    return place.resolve()


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """The newest checkpoint of a run; its hashes are not checked."""

    step: int
    saved_at: float
    """Unix time in seconds."""
    path: Path


def saved_checkpoint(run_dir: Path) -> SavedCheckpoint | None:
    """Return the newest checkpoint of a run, or None; imports no torch, which takes seconds."""
    folders = (run_dir / "checkpoints").glob("step-*")
    steps = {int(path.name[5:]): path for path in folders if path.name[5:].isdecimal()}
    if not steps:
        return None
    step = max(steps)
    try:
        return SavedCheckpoint(step, steps[step].stat().st_mtime, steps[step])
    except FileNotFoundError:  # a newer one has just replaced it
        return saved_checkpoint(run_dir)


def saved_step(run_dir: Path) -> int:
    """Return the step of the newest checkpoint of a run, or 0."""
    saved = saved_checkpoint(run_dir)
    return saved.step if saved else 0


def missing_final_step(run_dir: Path) -> int | None:
    """Return the last step of a finished run if its checkpoint is missing, else None."""
    step = (read_result(run_dir) or {}).get("steps")
    if step is None or (run_dir / "checkpoints" / f"step-{step:08d}" / CHECKPOINT_MARK).is_file():
        return None
    return step


def lost_final_checkpoint(run_dir: Path) -> str:
    """Return a message if a run is finished and its final checkpoint is missing, else ""."""
    step = missing_final_step(run_dir)
    if step is None:
        return ""
    saved = saved_checkpoint(run_dir)
    newest = f"the newest is of step {saved.step}" if saved else "it has none"
    return (
        f"{run_dir} is finished, but its final checkpoint, of step {step}, is missing ({newest});"
        f" to train it again, remove {run_dir / RESULT} and run the same command"
    )
