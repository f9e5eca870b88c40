"""Look after queued runs from a login node: `python launch/watch.py [RUNS_DIR ...]`, or by cron.

It starts requeued jobs without SLURM's delay, keeps jobs away from failing nodes, releases jobs
that SLURM holds, and reports runs that make no progress. Each action prints one line.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.slurm.watch.ledger import hold_ledger
from launch.slurm.watch.rules import WatchLimits
from launch.slurm.watch.watcher import Watcher
from pipeline.system.command import Parser, count, run_command
from pipeline.system.text import printable

RUNS_DIR = Path("runs")
NO_ANSWER = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return 0, 1 if SLURM does not answer (--once), 2 for a mistake."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: watch(options), name="watch.py")


def watch(options: argparse.Namespace) -> int:
    """Check the runs once or until Ctrl-C; return the exit code."""
    places: list[Path] = options.places or [RUNS_DIR]
    for place in places:
        if not place.is_dir():
            raise ValueError(f"{place} is not a folder; give folders of runs")
    limits = WatchLimits(options.stalled_minutes * 60, options.node_failures)
    with hold_ledger(places[0]) as ledger:
        watcher = Watcher(places, limits, ledger, say=_say)
        if options.once:
            return 0 if watcher.check() else NO_ANSWER
        while True:
            watcher.check()
            time.sleep(options.every_seconds)


def _say(message: str) -> None:
    line = printable(" ".join(message.split()))
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python launch/watch.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "places", nargs="*", type=Path, metavar="RUNS_DIR", help="folders of runs (default: runs)"
    )
    parser.add_argument("--once", action="store_true", help="check once, for cron")
    for name, default, meaning in (
        ("--every-seconds", 60.0, "time between two checks (default 60)"),
        ("--stalled-minutes", 30.0, "report runs without progress for this long (default 30)"),
    ):
        parser.add_argument(name, type=_positive, default=default, metavar="N", help=meaning)
    parser.add_argument(
        "--node-failures",
        type=count,
        default=3,
        metavar="N",
        help="exclude a node after N failures within a day (default 3)",
    )
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive number")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
