"""Start a training run: `python launch/submit.py [--nodes N] [--dry-run] CONFIG [a.b=c ...]`.

With SLURM, it queues a job on N nodes, with one rank for each GPU. Without SLURM, or with --local,
it starts one process for each GPU of this machine, or `--ranks N`; they run on the CPU if N exceeds
the number of GPUs. `--sweep KEY=V1,V2,...` trains with each of several settings, as one job array.
"""

import argparse
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.local.executors import start_as_job, start_here
from launch.local.preflight import check, check_machine, count_gpus
from launch.slurm.api.cli import SlurmError
from launch.slurm.records.submission import expect_no_job
from launch.sweep.points import Sweep, plan_sweep
from pipeline.config.foreign import option_hint
from pipeline.config.load import dump, dump_changes, load
from pipeline.config.schema import Config
from pipeline.distributed.launchers import expect_ranks
from pipeline.runs.folder import new_run_dir, own_runs
from pipeline.system.command import Parser, command_line, count, note, run_command
from pipeline.system.exit_codes import FAILURE
from pipeline.system.output import lasting_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake, 1 failure."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: submit(options))


def submit(options: argparse.Namespace) -> int:
    """Queue or train what the options ask for; return the exit code."""
    expect_ranks(os.environ)  # `srun -n 2` would start it twice
    here = options.local or options.executor or shutil.which("sbatch") is None
    if options.full and not options.dry_run:
        raise ValueError("--full only works with --dry-run")
    if options.sweep:
        return _sweep(options, here=here)
    if options.parallel:
        raise ValueError("--parallel only works with --sweep KEY=VALUE,VALUE,...")
    config = load(options.config, options.overrides, _note_for(options, here=here))
    if options.new:
        config = replace(config, run_dir=_another(config))
    if options.in_allocation:
        return _train_in_allocation(config, options)
    return _train_here(config, options) if here else _queue(config, options)


def _train_in_allocation(config: Config, options: argparse.Namespace) -> int:
    from launch.slurm.submit.allocation import AllocationRequest

    if options.local or options.executor or options.watch:
        raise ValueError("--in-allocation does not work with --local, --executor or --watch")
    if options.ranks:
        config = replace(config, slurm=replace(config.slurm, ranks_per_node=options.ranks))
    with _expecting_cluster():
        request = AllocationRequest.check(config, nodes=options.nodes)
    if options.dry_run:  # else the training itself warns
        _warn(request.preflight.warnings(gpus=request.layout.gpus_per_node, elsewhere=True))
        show(config, request.lines(), full=options.full)
        return 0
    return _run(request.train)


def _queue(config: Config, options: argparse.Namespace) -> int:
    from launch.slurm.follow import follow
    from launch.slurm.submit.acceptance import surprises
    from launch.slurm.submit.request import JobRequest, describe_submission, doubts_of

    if options.ranks:
        slurm = replace(config.slurm, ranks_per_node=options.ranks)
        config = replace(config, slurm=slurm)
    with _expecting_cluster():
        request = JobRequest.check(config, nodes=options.nodes)
    _warn(doubts_of(request))
    if options.dry_run:
        show(request.config, request.lines(), request.script(), full=options.full)
        return 0
    submission = request.queue()
    print(describe_submission(submission, config), flush=True)
    _warn(surprises(submission))
    return follow(submission) if options.watch else 0


def _sweep(options: argparse.Namespace, *, here: bool) -> int:
    excluded = {
        "--executor": options.executor,
        "--watch": options.watch,
        "--new": options.new,
        "--in-allocation": options.in_allocation,
    }
    if option := next((name for name, given in excluded.items() if given), ""):
        raise ValueError(f"{option} does not work with --sweep; remove one of them")
    overrides: list[str] = options.overrides
    if options.ranks and not here:
        overrides = [*overrides, f"slurm.ranks_per_node={options.ranks}"]
    told = _note_for(options, here=here)
    sweep = plan_sweep(options.config, overrides, options.sweep, told)
    if not sweep.unfinished:
        points = len(sweep.points)
        finished = "the point is finished" if points == 1 else f"all {points} points are finished"
        print(f"{finished}; see {command_line('launch/status.py', '--sweep', sweep.folder)}")
        return 0
    return _sweep_here(sweep, options) if here else _queue_sweep(sweep, options)


def _queue_sweep(sweep: Sweep, options: argparse.Namespace) -> int:
    from launch.slurm.submit.acceptance import surprises
    from launch.sweep.job_array import SweepRequest, describe_sweep

    with _expecting_cluster():
        request = SweepRequest.check(sweep, nodes=options.nodes, parallel=options.parallel)
    _warn(request.warnings)
    if options.dry_run:
        first = request.requests[0].config
        show(first, request.lines(), request.script(), full=options.full)
        return 0
    submissions = request.queue()
    print(describe_sweep(sweep, submissions), flush=True)
    _warn(surprises(submissions[0]))
    return 0


def _sweep_here(sweep: Sweep, options: argparse.Namespace) -> int:
    from launch.sweep.sequential import check_points, train_points

    ranks, gpus = _processes(options)
    _refuse_nodes(options.nodes, local=options.local)
    for point in sweep.unfinished:
        _expect_no_jobs(point.config)
    checked = check_points(sweep.unfinished, ranks=ranks, gpus=gpus)
    if options.dry_run:
        for preflight in checked:
            _warn(preflight.warnings(gpus=gpus))
            show(preflight.config, preflight.lines(), full=options.full)
        return 0
    command = [str(options.config), *options.overrides]
    return _run(lambda: train_points(sweep, command, ranks=ranks, gpus=gpus))


def _train_here(config: Config, options: argparse.Namespace) -> int:
    ranks, gpus = _processes(options)
    _refuse_nodes(options.nodes, local=options.local)
    _expect_no_jobs(config)
    check_machine(config, gpus=gpus)
    preflight = check(config, ranks=ranks)
    if options.dry_run or options.executor:  # else the training itself warns
        _warn(preflight.warnings(gpus=gpus))
    if options.dry_run:
        show(config, preflight.lines(), full=options.full)
        return 0
    command, executor = [str(options.config), *options.overrides], options.executor
    if options.new:
        command.append(f"run_dir={config.run_dir}")
    if executor:
        runs_dir = config.runs_dir
        return _run(lambda: start_as_job(executor, runs_dir, command, ranks=ranks, gpus=gpus))
    return _run(lambda: start_here(command, ranks=ranks, gpus=gpus))


def _another(config: Config) -> Path:
    """Return the folder of another run of `config`, for --new."""
    if config.run_dir:
        raise ValueError(f"--new does not work with run_dir={config.run_dir}; remove one of them")
    return new_run_dir(config)


def _expect_no_jobs(config: Config) -> None:
    """Raise `ValueError` if a job of SLURM has the run that would train on this machine."""
    if shutil.which("squeue"):
        for run_dir in own_runs(config):
            expect_no_job(run_dir)


def _run(training: Callable[[], int]) -> int:
    """Return the exit code of a training; its own `OSError` is a failure, not a user's mistake."""
    try:
        with lasting_output():
            return training()
    except OSError:
        traceback.print_exc()
        return FAILURE


def _processes(options: argparse.Namespace) -> tuple[int, int]:
    """Return the number of ranks on this machine, and how many GPUs they use."""
    visible = count_gpus()
    ranks: int = options.ranks or max(1, visible)
    return ranks, visible if ranks <= visible else 0


def show(
    config: Config, lines: Sequence[tuple[str, str]], script: str = "", *, full: bool = False
) -> None:
    """Print a recipe, its summary and the batch script, if any.

    The recipe has what differs from the defaults; in `full`, every setting.
    """
    rest = "# Every other setting has its default; --full shows them, too.\n"
    print(dump(config) if full else f"{dump_changes(config)}{rest}")
    for name, value in lines:
        print(f"{name + ':':16} {value}")
    if script:
        print(f"\n{script}")


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _note_for(options: argparse.Namespace, *, here: bool) -> Callable[[str], None]:
    """Return what prints a note about the configuration, unless the training itself will."""
    if here and not (options.dry_run or options.executor):
        return lambda _: None
    return note


@contextmanager
def _expecting_cluster() -> Generator[None]:
    """Add the remedy for a machine without a cluster to an error of SLURM in the block."""
    try:
        yield
    except SlurmError as error:
        raise ValueError(
            f"{' '.join(str(error).split())}; to train on this machine, use --local; on a cluster,"
            " check that slurmctld runs and SLURM_CONF is right"
        ) from error


def _refuse_nodes(nodes: int, *, local: bool) -> None:
    if nodes > 1:
        why = "--local trains on this machine" if local else "sbatch is not on PATH: no SLURM here"
        raise ValueError(
            f"--nodes {nodes} needs a SLURM cluster, but {why}; run it on a login node of the"
            " cluster, or without --nodes to train on this machine"
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python launch/submit.py", description="Train a network.", hint=option_hint
    )
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument(
        "--local", action="store_true", help="train on this machine, even with SLURM"
    )
    parser.add_argument(
        "--in-allocation",
        action="store_true",
        help="train in the job of this shell (salloc), without queueing another one",
    )
    parser.add_argument(
        "--executor",
        choices=("local", "debug"),
        help="train on this machine as a job of submitit: in another process, or in this one",
    )
    parser.add_argument(
        "--ranks", type=count, metavar="N", help="processes per node (default: one for each GPU)"
    )
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="KEY=V1,V2,...",
        help="train with each of these values; several --sweep give all combinations",
    )
    parser.add_argument(
        "--parallel", type=count, metavar="N", help="with SLURM: at most N jobs of a sweep at once"
    )
    parser.add_argument(
        "--new", action="store_true", help="start another run with the same settings"
    )
    parser.add_argument("--dry-run", action="store_true", help="check and print; start nothing")
    parser.add_argument("--full", action="store_true", help="with --dry-run: show every setting")
    parser.add_argument(
        "--watch", action="store_true", help="follow the job; Ctrl-C leaves it running"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
