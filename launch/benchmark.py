"""Measure the speed of the parts, each next to a plain alternative in the same run.

    python launch/benchmark.py loader CONFIG [a.b=c ...]     our loader and others
    python launch/benchmark.py overhead CONFIG [a.b=c ...]   the training loop and a bare one
    python launch/benchmark.py checkpoint CONFIG [a.b=c ...] saving in the background, and waiting

Both sides take turns, so a machine whose speed drifts slows both equally: quote the ratio.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.benchmarks.checkpoint_stall import compare_saves
from launch.benchmarks.loading import loader_sides
from launch.benchmarks.overhead import overhead_sides
from launch.benchmarks.turns import compare
from pipeline.config.foreign import option_hint
from pipeline.config.load import load
from pipeline.distributed.world import join_world, set_up_torch
from pipeline.runs.precision import with_device_precision
from pipeline.system.command import Parser, note, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> int:
    """Measure what the options name, and print it; return the exit code."""
    config = load(options.config, options.overrides, note)
    with ExitStack() as stack:
        world = stack.enter_context(join_world())
        config = with_device_precision(config, world.device)
        set_up_torch(deterministic=config.train.deterministic, world=world)
        match options.what:
            case "checkpoint":
                folder = options.folder or config.runs_dir
                compare_saves(config, world.device, folder, rounds=options.rounds)
                return 0
            case "loader":
                folder = stack.enter_context(TemporaryDirectory())
                sides = loader_sides(
                    config,
                    world,
                    Path(folder),
                    workers=options.workers,
                    as_bytes=options.bytes,
                )
            case _:
                sides = overhead_sides(config, world)
        compare(sides, options.rounds, options.batches, config.train.global_batch)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python launch/benchmark.py",
        hint=option_hint,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("loader", "overhead", "checkpoint"))
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--batches", type=int, default=10, help="batches per turn (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes (default 2)")
    parser.add_argument("--bytes", action="store_true", help="deliver bytes, as for a GPU")
    parser.add_argument("--folder", type=Path, help="for checkpoints (default: runs_dir)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
