"""What a sweep comes to: the final errors of its settings, over their seeds."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from launch.sweep.plan import read_settings
from pipeline.runs.find import SWEEP
from pipeline.runs.folder import read_result

SEED = "seed"


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One setting, over all seeds that have finished.

    Of the n finished points with final top-1 errors x_1 ... x_n, in percent, the mean is
    m = (x_1 + ... + x_n) / n and the sample standard deviation sqrt(sum of (x_i - m)^2 / (n - 1)),
    which there is from n = 2 on.
    """

    settings: dict[str, str]
    """All that differ between points, but for the seed."""
    mean_top1_error_percent: float | None
    sample_standard_deviation: float | None
    finished: int
    """n"""
    unfinished: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A sweep, one line for each setting in the order of the command."""

    sweep: Path
    lines: list[SummaryRow]

    @property
    def unfinished(self) -> int:
        return sum(line.unfinished for line in self.lines)


def find_sweep(name_or_folder: str, places: list[Path]) -> Path:
    """Return a sweep's folder, which may be named from where one stands or from one of `places`.

    Raises `ValueError` if it is in none.
    """
    for folder in (Path(name_or_folder), *(place / name_or_folder for place in places)):
        if (folder / SWEEP).is_file():
            return folder.resolve()
    known = sorted(record.parent.name for place in places for record in place.glob(f"*/{SWEEP}"))
    where = ", ".join(map(str, places))
    raise ValueError(f"no sweep {name_or_folder} in {where}; known: {', '.join(known) or 'none'}")


def summarize(folder: Path) -> Summary:
    """Return the figures of the sweep in `folder`, as far as its points have finished."""
    errors: dict[tuple[tuple[str, str], ...], list[float | None]] = {}
    for name, settings in read_settings(folder).items():
        others = tuple((key, value) for key, value in settings.items() if key != SEED)
        result = read_result(folder / name)
        errors.setdefault(others, []).append(result["top1_error_percent"] if result else None)
    return Summary(folder, [_line(dict(others), found) for others, found in errors.items()])


def _line(settings: dict[str, str], errors: list[float | None]) -> SummaryRow:
    known = [error for error in errors if error is not None]
    return SummaryRow(
        settings,
        mean_top1_error_percent=statistics.mean(known) if known else None,
        sample_standard_deviation=statistics.stdev(known) if len(known) > 1 else None,
        finished=len(known),
        unfinished=len(errors) - len(known),
    )
