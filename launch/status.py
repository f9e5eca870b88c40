"""Show runs: `python launch/status.py [RUNS_DIR ...]`, or one in detail: `launch/status.py RUN`.

`--sweep NAME_OR_FOLDER` shows the mean error of each setting of a sweep over its seeds. SLURM is
asked once for all runs; runs on this machine are shown in the same way.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.overview.details import read_details, to_json
from launch.overview.state import read_state, submissions
from launch.overview.tables import console, details_text, runs_table, sweep_table
from launch.slurm.api.cli import SlurmError
from launch.slurm.api.jobs import QueuedJob, read_jobs
from launch.slurm.records.submission import Submission
from launch.sweep.results import find_sweep, read_results
from pipeline.runs.find import find_runs, is_run
from pipeline.runs.summary import read_metrics
from pipeline.system.command import Parser, command_line, run_command
from pipeline.system.text import printable

RUNS_DIR = Path("runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0, or 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: show(options), name="status.py")


def show(options: argparse.Namespace) -> int:
    """Print runs or a sweep, as the options ask; return the exit code."""
    places: list[Path] = options.places or [RUNS_DIR]
    if options.sweep:
        show_sweep(find_sweep(options.sweep, places), as_json=options.json)
        return 0
    runs = find_runs(places)
    queued = submissions(runs)
    jobs = ask_slurm(queued)
    if len(places) == 1 and is_run(places[0]):
        show_one(runs[0], queued.get(runs[0]), jobs, as_json=options.json)
    else:
        show_all(runs, queued, jobs, as_json=options.json)
    return 0


def ask_slurm(queued: Mapping[Path, Submission]) -> dict[str, QueuedJob] | None:
    """Return the jobs of the runs by id; None, with a warning, if SLURM does not answer."""
    try:
        return read_jobs(each.job_id for each in queued.values() if each.job_id)
    except SlurmError as error:
        print(f"warning: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return None


def show_sweep(folder: Path, *, as_json: bool) -> None:
    """Print a line for each setting of a sweep."""
    results = read_results(folder)
    if as_json:
        print(json.dumps(asdict(results), indent=2, default=str))
    else:
        console().print(sweep_table(results))


def show_one(
    run: Path, submission: Submission | None, jobs: Mapping[str, QueuedJob] | None, *, as_json: bool
) -> None:
    """Print one run in detail."""
    details = read_details(run, submission, jobs)
    if as_json:
        print(to_json(details))
    else:
        console().print(details_text(details), crop=False)


def show_all(
    runs: Sequence[Path],
    queued: Mapping[Path, Submission],
    jobs: Mapping[str, QueuedJob] | None,
    *,
    as_json: bool,
) -> None:
    """Print a line for each run."""
    states = [read_state(run, queued.get(run), jobs, read_metrics(run)) for run in runs]
    if as_json:
        print(json.dumps([asdict(each) for each in states], indent=2, default=str))
    elif states:
        console().print(runs_table(states))
    else:
        print(f"no runs here; start one with {command_line('launch/submit.py', 'CONFIG')}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python launch/status.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "places", nargs="*", type=Path, metavar="RUNS_DIR", help="folders of runs, or one run"
    )
    parser.add_argument("--sweep", metavar="NAME_OR_FOLDER", help="show the results of a sweep")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
