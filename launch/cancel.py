"""End a run with what it has done saved: `python launch/cancel.py RUN [--now]`.

A job that waits is taken out of the queue. `python launch/resume.py RUN` goes on later.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from launch.slurm.cancellation import Cancellation, cancel
from pipeline.runs.find import expect_run

NOT_ENDED = 1
USER_MISTAKE = 2
INTERRUPTED = 130
EXIT_CODES = "exit codes: 0 it has ended, 1 not in time, 2 a mistake of the user's, 130 Ctrl-C"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 ended, 1 not in time, 2 mistake."""
    options = _parser().parse_args(arguments)
    try:
        run_dir = expect_run(options.run)
        ended = cancel(Cancellation(run_dir, options.now, options.wait_seconds, say=_say))
    except ValueError as error:
        print(f"cancel.py: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("\nnobody waits any longer; the run ends when it has saved", file=sys.stderr)
        return INTERRUPTED
    return 0 if ended else NOT_ENDED


def _say(message: str) -> None:
    print(message, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python launch/cancel.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXIT_CODES,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--now", action="store_true", help="at once: what is not saved is lost")
    parser.add_argument(
        "--wait-seconds", type=float, default=180.0, metavar="S", help="for its end (default 180)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
