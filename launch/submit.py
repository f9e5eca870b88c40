"""Start a training run: `python launch/submit.py [--nodes N] [--dry-run] CONFIG [a.b=c ...]`.

Where SLURM is, it queues a job on N nodes, with one rank for each GPU. Elsewhere, or with --local,
it starts one process for each GPU of this machine, or `--ranks N`: on the CPU if there are fewer
GPUs than that. `--sweep KEY=V1,V2,...` trains each of several settings, as one job array.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from launch.local.executors import start_as_job, start_here
from launch.local.preflight import check, check_machine, count_gpus
from launch.sweep.plan import Sweep, plan_sweep
from pipeline.config.load import dump, load
from pipeline.config.schema import Config
from pipeline.system.command import count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake, 1 failure."""
    options = _parser().parse_intermixed_args(arguments)
    here = options.local or options.executor or not _has_slurm()
    try:
        if options.sweep:
            return _sweep(options, here=here)
        if options.parallel:
            raise ValueError("--parallel is of sweeps; add --sweep KEY=VALUE,VALUE,...")
        config = load(options.config, options.overrides)
        return _train_here(config, options) if here else _queue(config, options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def _queue(config: Config, options: argparse.Namespace) -> int:
    from launch.slurm.follow import follow
    from launch.slurm.submit.request import JobRequest, describe_submission

    if options.ranks:
        slurm = replace(config.slurm, ranks_per_node=options.ranks)
        config = replace(config, slurm=slurm)
    request = JobRequest.check(config, nodes=options.nodes)
    for warning in request.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.dry_run:
        show(config, request.lines())
        print(f"\n{request.script()}")
        return 0
    submission = request.queue()
    print(describe_submission(submission, config), flush=True)
    return follow(submission) if options.watch else 0


def _sweep(options: argparse.Namespace, *, here: bool) -> int:
    if options.executor or options.watch:
        option = "--executor" if options.executor else "--watch"
        raise ValueError(f"{option} is of single runs; remove it, or --sweep")
    overrides: list[str] = options.overrides
    if options.ranks and not here:
        overrides = [*overrides, f"slurm.ranks_per_node={options.ranks}"]
    sweep = plan_sweep(options.config, overrides, options.sweep)
    if not sweep.unfinished:
        print(f"all {len(sweep.points)} points are finished; see launch/status.py --sweep", end=" ")
        print(sweep.folder)
        return 0
    return _sweep_here(sweep, options) if here else _queue_sweep(sweep, options)


def _queue_sweep(sweep: Sweep, options: argparse.Namespace) -> int:
    from launch.sweep.array import SweepRequest, describe_sweep

    request = SweepRequest.check(sweep, nodes=options.nodes, parallel=options.parallel)
    for warning in request.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.dry_run:
        show(request.requests[0].config, request.lines())
        print(f"\n{request.script()}")
        return 0
    print(describe_sweep(sweep, request.queue()), flush=True)
    return 0


def _sweep_here(sweep: Sweep, options: argparse.Namespace) -> int:
    from launch.sweep.local import check_points, train_points

    ranks, gpus = _processes(options)
    _refuse_nodes(options.nodes, local=options.local)
    checked = check_points(sweep.unfinished, ranks=ranks, gpus=gpus)
    if options.dry_run:
        for preflight in checked:
            show(preflight.config, preflight.lines())
        return 0
    command = [str(options.config), *options.overrides]
    return train_points(sweep, command, ranks=ranks, gpus=gpus)


def _processes(options: argparse.Namespace) -> tuple[int, int]:
    """Return how many ranks are asked for on this machine, and how many GPUs they have."""
    visible = count_gpus()
    ranks: int = options.ranks or max(1, visible)
    return ranks, visible if ranks <= visible else 0


def _train_here(config: Config, options: argparse.Namespace) -> int:
    ranks, gpus = _processes(options)
    _refuse_nodes(options.nodes, local=options.local)
    check_machine(config, gpus=gpus)
    preflight = check(config, ranks=ranks)
    if options.dry_run:
        show(config, preflight.lines())
        return 0
    command = [str(options.config), *options.overrides]
    if options.executor:
        return start_as_job(options.executor, config.runs_dir, command, ranks=ranks, gpus=gpus)
    return start_here(command, ranks=ranks, gpus=gpus)


def show(config: Config, lines: Sequence[tuple[str, str]]) -> None:
    """Print the resolved configuration and what it comes to."""
    print(dump(config))
    for name, value in lines:
        print(f"{name + ':':16} {value}")


def _has_slurm() -> bool:
    return shutil.which("sbatch") is not None


def _refuse_nodes(nodes: int, *, local: bool) -> None:
    if nodes > 1:
        why = "--local runs on this one" if local else "sbatch is not on PATH: no SLURM here"
        raise ValueError(
            f"--nodes {nodes} needs a SLURM cluster, but {why}; run it on a login node of the"
            " cluster, or without --nodes to train on this machine"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python launch/submit.py", description="Train a network.")
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that differ")
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument("--local", action="store_true", help="on this machine, even with SLURM")
    parser.add_argument(
        "--executor",
        choices=("local", "debug"),
        help="on this machine as a job of submitit's: a process of its own, or this one",
    )
    parser.add_argument(
        "--ranks", type=count, metavar="N", help="processes a node (default: its GPUs)"
    )
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="KEY=V1,V2,...",
        help="train with each of these values; several --sweep give all combinations",
    )
    parser.add_argument(
        "--parallel", type=count, metavar="N", help="most jobs of a sweep at a time, with SLURM"
    )
    parser.add_argument("--dry-run", action="store_true", help="check and show; start nothing")
    parser.add_argument("--watch", action="store_true", help="follow the job; Ctrl-C leaves it be")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
