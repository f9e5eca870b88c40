"""The results of a sweep: the final errors of its settings, over their seeds."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from launch.sweep.points import read_settings
from pipeline.runs.find import SWEEP
from pipeline.runs.folder import read_result

SEED = "seed"


@dataclass(frozen=True, slots=True)
class SettingResult:
    """One setting, over all of its finished seeds.

    Of the n finished points with final top-1 errors x_1 ... x_n, in percent, the mean is
    m = (x_1 + ... + x_n) / n, and the sample standard deviation is
    sqrt(sum of (x_i - m)^2 / (n - 1)), for n of at least 2.
    """

    settings: dict[str, str]
    """All swept settings but the seed."""
    mean_top1_error_percent: float | None
    sample_standard_deviation: float | None
    finished: int
    """n"""
    unfinished: int


@dataclass(frozen=True, slots=True)
class SweepResults:
    """A sweep, one line for each setting in the order of the command."""

    sweep: Path
    lines: list[SettingResult]

    @property
    def unfinished(self) -> int:
        return sum(line.unfinished for line in self.lines)


def find_sweep(name_or_folder: str, places: list[Path]) -> Path:
    """Return the folder of a sweep, given by its path or by its name in one of `places`.

    Raises `ValueError` if there is no such sweep.
    """
    for folder in (Path(name_or_folder), *(place / name_or_folder for place in places)):
        if (folder / SWEEP).is_file():
            return folder.resolve()
    known = sorted(record.parent.name for place in places for record in place.glob(f"*/{SWEEP}"))
    where = ", ".join(map(str, places))
    raise ValueError(f"no sweep {name_or_folder} in {where}; known: {', '.join(known) or 'none'}")


def read_results(folder: Path) -> SweepResults:
    """Return the results of the finished points of the sweep in `folder`."""
    errors: dict[tuple[tuple[str, str], ...], list[float | None]] = {}
    for name, settings in read_settings(folder).items():
        others = tuple((key, value) for key, value in settings.items() if key != SEED)
        result = read_result(folder / name)
        errors.setdefault(others, []).append(result["top1_error_percent"] if result else None)
    return SweepResults(folder, [_line(dict(others), found) for others, found in errors.items()])


def _line(settings: dict[str, str], errors: list[float | None]) -> SettingResult:
    known = [error for error in errors if error is not None]
    return SettingResult(
        settings,
        mean_top1_error_percent=statistics.mean(known) if known else None,
        sample_standard_deviation=statistics.stdev(known) if len(known) > 1 else None,
        finished=len(known),
        unfinished=len(errors) - len(known),
    )
