"""Queue an unfinished run again: `python launch/resume.py RUN [--nodes M] [a.b=c ...]`.

It resumes from its last checkpoint, on as many nodes as before or on M. `a.b=c` may change any
setting that does not decide the result.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.slurm.records.submission import expect_no_job, last_submission
from pipeline.config.load import load
from pipeline.config.schema import Config
from pipeline.runs.find import expect_run
from pipeline.runs.folder import CONFIG_FILE, RESULT
from pipeline.runs.holder import holder
from pipeline.system.command import count, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 queued, 2 for a user's mistake."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: _resume(options), name="resume.py")


def _resume(options: argparse.Namespace) -> int:
    run_dir = expect_run(options.run)
    expect_unfinished(run_dir)
    config = replace(load(run_dir / CONFIG_FILE, options.overrides), run_dir=run_dir)
    if shutil.which("sbatch") is None:
        print("no SLURM here (sbatch is not on PATH); to resume on this machine:")
        print(local_command(run_dir, options.overrides))
        return 0
    expect_no_job(run_dir)
    print(queue_again(config, run_dir, options.nodes))
    return 0


def queue_again(config: Config, run_dir: Path, nodes: int | None) -> str:
    """Queue the run; return what to print about its job."""
    before = last_submission(run_dir)
    if before is not None:
        os.chdir(before.directory)  # relative paths in the configuration start there
    # Imports torch and submitit, which the checks above do not need.
    from launch.slurm.submit.acceptance import surprises
    from launch.slurm.submit.request import JobRequest, describe_submission

    wanted = nodes or (before.layout.nodes if before else 1)
    request = JobRequest.check(config, nodes=wanted)
    for warning in request.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    submission = request.queue()
    return "\n".join([describe_submission(submission, config), *surprises(submission)])


def expect_unfinished(run_dir: Path) -> None:
    """Raise `ValueError` if a run is finished, or runs on this machine."""
    if (run_dir / RESULT).exists():
        raise ValueError(
            f"{run_dir} is finished; see launch/status.py {run_dir}, or start another run with"
            " launch/submit.py"
        )
    if pid := holder(run_dir):
        raise ValueError(
            f"{run_dir} is running in process {pid} on this machine; wait for it, or stop it with"
            f" launch/cancel.py {run_dir}"
        )


def local_command(run_dir: Path, overrides: Sequence[str]) -> str:
    """Return the command that resumes the run on this machine."""
    settings = [f"run_dir={run_dir}", *overrides]
    words = ["launch/submit.py", "--local", str(run_dir / CONFIG_FILE), *settings]
    return f"python {shlex.join(words)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python launch/resume.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument("--nodes", type=count, metavar="M", help="machines (default: as before)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
