"""Save a run and end it: `python launch/cancel.py RUN [--now]`.

A pending job leaves the queue. `python launch/resume.py RUN` resumes the run later.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.slurm.cancellation import Cancellation, cancel
from pipeline.runs.find import expect_run
from pipeline.system.command import Parser, run_command
from pipeline.system.text import printable

NOT_ENDED = 1
EXIT_CODES = "exit codes: 0 the run has ended, 1 not in time, 2 user's mistake, 130 Ctrl-C"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 ended, 1 not in time, 2 mistake."""
    options = _parser().parse_args(arguments)
    interrupted = "stopped waiting; the run ends once it has saved"
    return run_command(lambda: _cancel(options), name="cancel.py", interrupted=interrupted)


def _cancel(options: argparse.Namespace) -> int:
    run_dir = expect_run(options.run)
    wanted = Cancellation(run_dir, options.now, options.wait_seconds, say=_say)
    return 0 if cancel(wanted) else NOT_ENDED


def _say(message: str) -> None:
    print(printable(message), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python launch/cancel.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXIT_CODES,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--now", action="store_true", help="at once; unsaved work is lost")
    parser.add_argument(
        "--wait-seconds",
        type=float,
        default=180.0,
        metavar="S",
        help="how long to wait for the end (default 180)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
