"""Queue an unfinished run again: `python launch/resume.py RUN [--nodes M] [a.b=c ...]`.

It resumes from its last checkpoint, on as many nodes as before or on M. `a.b=c` may change any
setting that does not decide the result.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.slurm.api.cli import SlurmError
from launch.slurm.records.submission import expect_no_job, last_submission
from pipeline.config.foreign import option_hint
from pipeline.config.load import load
from pipeline.config.schema import Config
from pipeline.runs.find import expect_run, runs_dir_of
from pipeline.runs.folder import CONFIG_FILE, RESULT
from pipeline.runs.holder import holder
from pipeline.system.command import Parser, command_line, count, note, run_command

PLAIN = re.compile(r"/[\w/.+@,= -]*")
"""A path that YAML reads as it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 queued, 2 for a user's mistake."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: _resume(options), name="resume.py")


def _resume(options: argparse.Namespace) -> int:
    run_dir = expect_run(options.run)
    expect_unfinished(run_dir)
    config = replace(load(run_dir / CONFIG_FILE, options.overrides, note), run_dir=run_dir)
    here = local_command(config, run_dir, options.overrides)
    if shutil.which("sbatch") is None:
        print(f"no SLURM here (sbatch is not on PATH); to resume on this machine:\n{here}")
        return 0
    try:
        expect_no_job(run_dir)
        print(queue_again(config, run_dir, options.nodes))
    except SlurmError as error:
        raise ValueError(f"{error}\nto resume on this machine instead:\n{here}") from error
    return 0


def queue_again(config: Config, run_dir: Path, nodes: int | None) -> str:
    """Queue the run; return what to print about its job."""
    before = last_submission(run_dir)
    if before is not None:
        os.chdir(before.directory)  # relative paths in the configuration start there
    # Imports torch and submitit, which the checks above do not need.
    from launch.slurm.submit.acceptance import surprises
    from launch.slurm.submit.request import JobRequest, describe_submission, doubts_of

    wanted = nodes or (before.layout.nodes if before else 1)
    request = JobRequest.check(config, nodes=wanted)
    for warning in doubts_of(request):
        print(f"warning: {warning}", file=sys.stderr)
    submission = request.queue()
    return "\n".join([describe_submission(submission, config), *surprises(submission)])


def expect_unfinished(run_dir: Path) -> None:
    """Raise `ValueError` if a run is finished, or runs on this machine."""
    if (run_dir / RESULT).exists():
        raise ValueError(
            f"{run_dir} is finished; see {command_line('launch/status.py', run_dir)}, or start"
            " another run with launch/submit.py"
        )
    if pid := holder(run_dir):
        raise ValueError(
            f"{run_dir} is running in process {pid} on this machine; wait for it, or stop it with"
            f" {command_line('launch/cancel.py', run_dir)}"
        )


def local_command(config: Config, run_dir: Path, overrides: Sequence[str]) -> str:
    """Return the command that resumes the run on this machine, from the folder it was started in.

    Relative paths in its configuration start there, and `runs_dir` is one of them.
    """
    place = str(run_dir)
    if not PLAIN.fullmatch(place):
        place = json.dumps(place, ensure_ascii=False)
    settings = [f"run_dir={place}", *overrides]
    folder, runs_dir = runs_dir_of(run_dir), config.runs_dir
    start = Path(*folder.parts[: -len(runs_dir.parts)]) if runs_dir.parts else folder
    is_start = not runs_dir.is_absolute() and start / runs_dir == folder
    with chdir(start if is_start else Path.cwd()):
        command = command_line("launch/submit.py", "--local", run_dir / CONFIG_FILE, *settings)
    is_here = not is_start or start == Path.cwd()
    return command if is_here else f"cd {shlex.quote(str(start))} && {command}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python launch/resume.py",
        description=(__doc__ or "").partition("\n")[0],
        hint=option_hint,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument("--nodes", type=count, metavar="M", help="machines (default: as before)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
