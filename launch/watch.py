"""Look after queued runs from a login node: `python launch/watch.py [RUNS_DIR ...]`, or by cron.

It starts at once what SLURM lets wait after a requeue, keeps jobs away from nodes that fail,
releases jobs that SLURM holds, and tells of runs that do not progress. Each action is one line.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from launch.slurm.watch.ledger import hold_memory
from launch.slurm.watch.rules import WatchLimits
from launch.slurm.watch.watcher import Watcher

RUNS_DIR = Path("runs")
NO_ANSWER = 1
USER_MISTAKE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return 0, 1 if SLURM does not answer (--once), 2 for a mistake."""
    options = _parser().parse_args(arguments)
    places: list[Path] = options.places or [RUNS_DIR]
    limits = WatchLimits(options.stalled_minutes * 60, options.node_failures)
    try:
        expect_folders(places)
        with hold_memory(places[0]) as memory:
            watcher = Watcher(places, limits, memory, say=_say)
            if options.once:
                return 0 if watcher.look() else NO_ANSWER
            while True:
                watcher.look()
                time.sleep(options.every_seconds)
    except ValueError as error:
        print(f"watch.py: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED


def expect_folders(places: Sequence[Path]) -> None:
    """Raise `ValueError` unless all places are folders."""
    for place in places:
        if not place.is_dir():
            raise ValueError(f"{place} is not there; name folders that hold runs")


def _say(message: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(message.split())}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python launch/watch.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "places", nargs="*", type=Path, metavar="RUNS_DIR", help="folders of runs (default: runs)"
    )
    parser.add_argument("--once", action="store_true", help="look once, as for cron")
    for name, default, meaning in (
        ("--every-seconds", 60.0, "between two looks"),
        ("--stalled-minutes", 30.0, "without a sign of progress until a run is told of"),
    ):
        parser.add_argument(name, type=_positive, default=default, metavar="N", help=meaning)
    parser.add_argument(
        "--node-failures",
        type=int,
        default=3,
        metavar="N",
        help="in a day, until jobs are kept from a node (default 3)",
    )
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number over 0")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
