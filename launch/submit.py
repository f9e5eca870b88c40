"""Start a training run: `python launch/submit.py [--dry-run] CONFIG [a.b=c ...]`.

On this machine it starts one process for each GPU, or `--ranks N` processes on the CPU.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from launch.preflight import Preflight, check
from pipeline import train
from pipeline.config.load import dump, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake, 1 failure."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        config = load(options.config, options.overrides)
        _refuse_cluster(options.nodes, local=options.local)
        ranks = options.ranks or max(1, torch.cuda.device_count())
        preflight = check(config, ranks=ranks)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.dry_run:
        show(preflight)
        return 0
    return start_here([str(options.config), *options.overrides], ranks=ranks)


def show(preflight: Preflight) -> None:
    """Print the resolved configuration and what it comes to."""
    print(dump(preflight.config))
    for name, value in preflight.lines():
        print(f"{name + ':':16} {value}")


def start_here(command: Sequence[str], *, ranks: int) -> int:
    """Train on this machine with `ranks` processes; return the exit code."""
    if ranks == 1:
        return train.main(command)
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(ranks)]
    processes = subprocess.Popen(
        [*torchrun, "-m", "pipeline.train", *command],
        env={"OMP_NUM_THREADS": str(threads)} | os.environ,
    )
    try:
        return processes.wait()
    except KeyboardInterrupt:  # it has reached the processes too: let them end
        processes.wait()
        return 130


def _refuse_cluster(nodes: int | None, *, local: bool) -> None:
    has_slurm = shutil.which("sbatch") is not None
    if nodes is not None and nodes > 1 and (local or not has_slurm):
        why = "--local runs on this one" if local else "sbatch is not on PATH: no SLURM here"
        raise ValueError(
            f"--nodes {nodes} needs a SLURM cluster, but {why}; run it on a login node of the"
            " cluster, or without --nodes to train on this machine"
        )
    if has_slurm and not local:
        raise ValueError("submitting to SLURM is not built yet; train on this machine with --local")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python launch/submit.py", description="Train a network.")
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that differ")
    parser.add_argument("--nodes", type=_count, metavar="N", help="nodes of the cluster")
    parser.add_argument("--local", action="store_true", help="on this machine, even with SLURM")
    parser.add_argument("--ranks", type=_count, metavar="N", help="processes (default: the GPUs)")
    parser.add_argument("--dry-run", action="store_true", help="check and show; start nothing")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    raise SystemExit(main())
