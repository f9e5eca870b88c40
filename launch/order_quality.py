"""Compare orders of the images: how well classes mix in a batch, and how long the reads are.

    python launch/order_quality.py CONFIG [a.b=c ...] [--windowed 64x256x1 ...] [--read STEPS]

It prints a row for the global shuffle, for the order of the configuration, and for each --windowed,
which is shard_images x window_shards x lanes. --read also reads the images of that many steps from
the disk, without decoding them, after dropping the files from the page cache.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.benchmarks.orders import compare
from pipeline.config.foreign import option_hint
from pipeline.config.load import load
from pipeline.config.schema import Windowed
from pipeline.dataset.index import Index
from pipeline.system.command import Parser, note, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0 done, 2 user's mistake."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: measure(options))


def measure(options: argparse.Namespace) -> int:
    """Compare the orders that the options name; return the exit code."""
    config = load(options.config, options.overrides, note)
    windowed = [_parse(text, config.train.global_batch) for text in options.windowed]
    index = Index.open(config.data.dir, "train", config.data.root)
    compare(index, config, windowed, batches=options.batches, read_steps=options.read)
    return 0


def _parse(text: str, global_batch: int) -> Windowed:
    try:
        shard, window, lanes = map(int, text.split("x"))
        spec = Windowed(shard_images=shard, window_shards=window, lanes=lanes)
    except ValueError as error:
        raise ValueError(
            f"--windowed {text}: must be three positive numbers, such as 64x256x1"
        ) from error
    if global_batch % lanes:
        raise ValueError(
            f"--windowed {text}: {lanes} lanes do not divide a batch of {global_batch}"
        )
    return spec


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python launch/order_quality.py",
        hint=option_hint,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument(
        "--windowed",
        action="append",
        default=[],
        metavar="SHARDxWINDOWxLANES",
        help="a windowed order; may be given several times",
    )
    parser.add_argument(
        "--batches", type=int, default=100, help="random batches to examine (default 100)"
    )
    parser.add_argument(
        "--read", type=int, default=0, metavar="STEPS", help="steps to read (default 0)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
