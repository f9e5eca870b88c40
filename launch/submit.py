"""Start a training run: `python launch/submit.py [--nodes N] [--dry-run] CONFIG [a.b=c ...]`.

With SLURM, it queues a job on N nodes, with one rank for each GPU. Without SLURM, or with --local,
it starts one process for each GPU of this machine, or `--ranks N`; they run on the CPU if N exceeds
the number of GPUs. `--sweep KEY=V1,V2,...` trains with each of several settings, as one job array.
"""

import argparse
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.local.executors import start_as_job, start_here
from launch.local.preflight import check, check_machine, count_gpus
from launch.sweep.points import Sweep, plan_sweep
from pipeline.config.load import dump, load
from pipeline.config.schema import Config
from pipeline.system.command import count, run_command
from pipeline.system.exit_codes import FAILURE
from pipeline.system.output import lasting_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake, 1 failure."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: submit(options))


def submit(options: argparse.Namespace) -> int:
    """Queue or train what the options ask for; return the exit code."""
    here = options.local or options.executor or shutil.which("sbatch") is None
    if options.sweep:
        return _sweep(options, here=here)
    if options.parallel:
        raise ValueError("--parallel only works with --sweep KEY=VALUE,VALUE,...")
    config = load(options.config, options.overrides)
    return _train_here(config, options) if here else _queue(config, options)


def _queue(config: Config, options: argparse.Namespace) -> int:
    from launch.slurm.follow import follow
    from launch.slurm.submit.request import JobRequest, describe_submission

    if options.ranks:
        slurm = replace(config.slurm, ranks_per_node=options.ranks)
        config = replace(config, slurm=slurm)
    request = JobRequest.check(config, nodes=options.nodes)
    _warn(request.warnings)
    if options.dry_run:
        show(config, request.lines(), request.script())
        return 0
    submission = request.queue()
    print(describe_submission(submission, config), flush=True)
    return follow(submission) if options.watch else 0


def _sweep(options: argparse.Namespace, *, here: bool) -> int:
    if options.executor or options.watch:
        option = "--executor" if options.executor else "--watch"
        raise ValueError(f"{option} does not work with --sweep; remove one of them")
    overrides: list[str] = options.overrides
    if options.ranks and not here:
        overrides = [*overrides, f"slurm.ranks_per_node={options.ranks}"]
    sweep = plan_sweep(options.config, overrides, options.sweep)
    if not sweep.unfinished:
        points = len(sweep.points)
        finished = "the point is finished" if points == 1 else f"all {points} points are finished"
        print(f"{finished}; see launch/status.py --sweep {sweep.folder}")
        return 0
    return _sweep_here(sweep, options) if here else _queue_sweep(sweep, options)


def _queue_sweep(sweep: Sweep, options: argparse.Namespace) -> int:
    from launch.sweep.job_array import SweepRequest, describe_sweep

    request = SweepRequest.check(sweep, nodes=options.nodes, parallel=options.parallel)
    _warn(request.warnings)
    if options.dry_run:
        show(request.requests[0].config, request.lines(), request.script())
        return 0
    print(describe_sweep(sweep, request.queue()), flush=True)
    return 0


def _sweep_here(sweep: Sweep, options: argparse.Namespace) -> int:
    from launch.sweep.sequential import check_points, train_points

    ranks, gpus = _processes(options)
    _refuse_nodes(options.nodes, local=options.local)
    checked = check_points(sweep.unfinished, ranks=ranks, gpus=gpus)
    if options.dry_run:
        for preflight in checked:
            show(preflight.config, preflight.lines())
        return 0
    command = [str(options.config), *options.overrides]
    return _run(lambda: train_points(sweep, command, ranks=ranks, gpus=gpus))


def _train_here(config: Config, options: argparse.Namespace) -> int:
    ranks, gpus = _processes(options)
    _refuse_nodes(options.nodes, local=options.local)
    check_machine(config, gpus=gpus)
    preflight = check(config, ranks=ranks)
    if options.dry_run:
        show(config, preflight.lines())
        return 0
    command, executor = [str(options.config), *options.overrides], options.executor
    if executor:
        runs_dir = config.runs_dir
        return _run(lambda: start_as_job(executor, runs_dir, command, ranks=ranks, gpus=gpus))
    return _run(lambda: start_here(command, ranks=ranks, gpus=gpus))


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


def show(config: Config, lines: Sequence[tuple[str, str]], script: str = "") -> None:
    """Print the resolved configuration, its summary and the batch script, if any."""
    print(dump(config))
    for name, value in lines:
        print(f"{name + ':':16} {value}")
    if script:
        print(f"\n{script}")


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _refuse_nodes(nodes: int, *, local: bool) -> None:
    if nodes > 1:
        why = "--local trains on this machine" if local else "sbatch is not on PATH: no SLURM here"
        raise ValueError(
            f"--nodes {nodes} needs a SLURM cluster, but {why}; run it on a login node of the"
            " cluster, or without --nodes to train on this machine"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python launch/submit.py", description="Train a network.")
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument(
        "--local", action="store_true", help="train on this machine, even with SLURM"
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
    parser.add_argument("--dry-run", action="store_true", help="check and print; start nothing")
    parser.add_argument(
        "--watch", action="store_true", help="follow the job; Ctrl-C leaves it running"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
