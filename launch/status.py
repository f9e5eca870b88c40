"""Show runs: `python launch/status.py [RUNS_DIR ...]`, or all about one: `launch/status.py RUN`.

`--sweep NAME_OR_FOLDER` shows the mean error of each setting of a sweep over its seeds.

It asks SLURM once for all of them, and shows runs on this machine alike.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from launch.overview.details import read_details, to_json
from launch.overview.state import read_standing, submissions
from launch.overview.tables import console, details_text, runs_table, sweep_table
from launch.slurm.api.cli import SlurmError
from launch.slurm.api.jobs import QueuedJob, read_jobs
from launch.slurm.records.submission import Submission
from launch.sweep.summary import find_sweep, summarize
from pipeline.runs.find import find_runs, is_run
from pipeline.runs.summary import read_metrics

RUNS_DIR = Path("runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0, or 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    places: list[Path] = options.places or [RUNS_DIR]
    try:
        if options.sweep:
            show_sweep(find_sweep(options.sweep, places), as_json=options.json)
        else:
            show_runs(places, as_json=options.json)
        sys.stdout.flush()
    except ValueError as error:
        print(f"status.py: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # its reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def show_runs(places: Sequence[Path], *, as_json: bool) -> None:
    """Print a line for each run in `places`, or all about the one that the only place is."""
    runs = find_runs(places)
    queued = submissions(runs)
    jobs = ask_slurm(queued)
    if len(places) == 1 and is_run(places[0]):
        show_one(runs[0], queued.get(runs[0]), jobs, as_json=as_json)
    else:
        show_all(runs, queued, jobs, as_json=as_json)


def show_sweep(folder: Path, *, as_json: bool) -> None:
    """Print a line for each setting of a sweep."""
    summary = summarize(folder)
    if as_json:
        print(json.dumps(asdict(summary), indent=2, default=str))
    else:
        console().print(sweep_table(summary))


def ask_slurm(queued: Mapping[Path, Submission]) -> dict[str, QueuedJob] | None:
    """Return the jobs of the runs that have one; None, with a warning, if SLURM does not answer."""
    try:
        return read_jobs(each.job_id for each in queued.values() if each.job_id)
    except SlurmError as error:
        print(f"warning: {' '.join(str(error).split())}", file=sys.stderr)
        return None


def show_one(
    run: Path, submission: Submission | None, jobs: Mapping[str, QueuedJob] | None, *, as_json: bool
) -> None:
    """Print all about one run."""
    details = read_details(run, submission, jobs)
    if as_json:
        print(to_json(details))
    else:
        console().print(details_text(details))


def show_all(
    runs: Sequence[Path],
    queued: Mapping[Path, Submission],
    jobs: Mapping[str, QueuedJob] | None,
    *,
    as_json: bool,
) -> None:
    """Print a line for each run."""
    standings = [read_standing(run, queued.get(run), jobs, read_metrics(run)) for run in runs]
    if as_json:
        print(json.dumps([asdict(each) for each in standings], indent=2, default=str))
    elif standings:
        console().print(runs_table(standings))
    else:
        print("no runs here; start one with launch/submit.py")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python launch/status.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "places", nargs="*", type=Path, metavar="RUNS_DIR", help="folders of runs, or one run"
    )
    parser.add_argument("--sweep", metavar="NAME_OR_FOLDER", help="what a sweep comes to")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
