"""Start a training run: `python launch/submit.py [--dry-run] CONFIG [a.b=c ...]`.

On this machine it starts one process for each GPU, or `--ranks N`: on the CPU if there are fewer
GPUs than that.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# So that it also runs from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from launch.local import run_ranks
from launch.preflight import Preflight, check, check_machine, count_gpus
from pipeline import train
from pipeline.config.load import dump, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake, 1 failure."""
    options = _parser().parse_intermixed_args(arguments)
    visible = count_gpus()
    ranks: int = options.ranks or max(1, visible)  # on each node
    gpus = visible if ranks <= visible else 0
    here = options.local or not _has_slurm()
    try:
        config = load(options.config, options.overrides)
        if here:
            _refuse_nodes(options.nodes, local=options.local)
            check_machine(config, gpus=gpus)
        elif not options.dry_run:
            raise ValueError(
                "submitting to SLURM is not built yet; train on this machine with --local"
            )
        preflight = check(config, ranks=ranks * options.nodes)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.dry_run:
        show(preflight)
        return 0
    return start_here([str(options.config), *options.overrides], ranks=ranks, gpus=gpus)


def show(preflight: Preflight) -> None:
    """Print the resolved configuration and what it comes to."""
    print(dump(preflight.config))
    for name, value in preflight.lines():
        print(f"{name + ':':16} {value}")


def start_here(command: Sequence[str], *, ranks: int, gpus: int) -> int:
    """Train on this machine with `ranks` processes; return the exit code."""
    if ranks == 1:
        return train.main(command)
    return run_ranks(["pipeline.train", *command], ranks=ranks, cpu_only=gpus == 0)


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
    parser.add_argument("--nodes", type=_count, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument("--local", action="store_true", help="on this machine, even with SLURM")
    parser.add_argument(
        "--ranks", type=_count, metavar="N", help="processes a node (default: its GPUs)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check and show; start nothing")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
