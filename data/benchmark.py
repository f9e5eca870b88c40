"""Measure the cost of preparing data: `python data/benchmark.py indexing | opening ...`.

Figures are compared within one run, as ratios, because the machine may be shared.
"""

import json
import subprocess
import sys
import time
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the project need not be installed

from data import prepare
from pipeline.dataset.index import Index
from pipeline.dataset.order import training_places
from pipeline.dataset.samples import DIGEST_BYTES, Samples, StoredFile
from pipeline.dataset.writing import Dataset, write_dataset
from pipeline.system.command import Parser, count, run_command

ROUNDS = 3
CLASSES = 1000
SHARDS = 1024
MEAN_IMAGE_BYTES = 110_000
GLOBAL_BATCH = 4096
OPENING = "import sys; from data import benchmark; benchmark.report_opening(sys.argv[1])"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark and print its figures; return 0, or 2 after a user's mistake."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments), name="benchmark.py")


def indexing(arguments: Namespace) -> int:
    """Index archives with prepare.py, and compare with reading the same files with `cat`."""
    files = [Path(argument) for argument in arguments.command if Path(argument).is_file()]
    size = sum(file.stat().st_size for file in files)
    print(f"{size / 1e9:.2f} GB in {len(files)} files")
    for _ in range(ROUNDS):
        cat = _seconds(["cat", *map(str, files)])
        with TemporaryDirectory(dir=arguments.scratch) as out:
            program = str(Path(prepare.__file__))
            ours = _seconds([sys.executable, program, *arguments.command, "--out", out])
        print(
            f"cat {size / cat / 1e9:6.2f} GB/s   prepare {size / ours / 1e9:6.2f} GB/s "
            f"({ours:.2f} s)   ratio {cat / ours:.2f}"
        )
    return 0


def opening(arguments: Namespace) -> int:
    """Write an index of simulated samples, and open it in other processes."""
    with TemporaryDirectory(dir=arguments.scratch) as folder:
        started = time.perf_counter()
        write_simulated(Path(folder), arguments.samples)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        print(f"written in {time.perf_counter() - started:.1f} s, {size / 1e6:,.0f} MB")
        for _ in range(ROUNDS):
            subprocess.run([sys.executable, "-c", OPENING, folder], check=True)
    return 0


def report_opening(folder: str) -> None:
    """Open an index and draw a global batch; print the time, and the memory in MB."""
    before = _memory()
    started = time.perf_counter()
    index = Index.open(Path(folder), "train")
    opened = time.perf_counter() - started
    after = _memory()
    started = time.perf_counter()
    places = training_places(1, samples=len(index), seed=0, global_batch=GLOBAL_BATCH)
    _ = index.sizes[places.samples], index.offsets[places.samples], index.labels[places.samples]
    drawn = time.perf_counter() - started
    memory = json.dumps({"before": before, "opened": after, "drawn": _memory()})
    print(
        f"{len(index):,} samples opened in {opened:.3f} s; a global batch of {GLOBAL_BATCH} drawn "
        f"in {drawn * 1e3:.1f} ms; MB {memory}"
    )


def write_simulated(folder: Path, images: int) -> None:
    """Write the index of a simulated dataset of `images` images, whose shards do not exist."""
    random = np.random.default_rng(0)
    shard = np.arange(images) * SHARDS // images
    sizes = random.integers(MEAN_IMAGE_BYTES // 2, 3 * MEAN_IMAGE_BYTES // 2, images)
    ends = np.cumsum(sizes)
    firsts = np.searchsorted(shard, np.arange(SHARDS))
    offsets = ends - sizes - (ends - sizes)[firsts[shard]]
    columns = {
        "file": shard.astype(np.int32),
        "offset": offsets,
        "size": sizes,
        "label": random.integers(0, CLASSES, images).astype(np.int32),
        "width": np.full(images, 500, np.int32),
        "height": np.full(images, 375, np.int32),
    }
    digests = random.integers(0, 256, (images, DIGEST_BYTES), np.uint8)
    totals = np.bincount(shard, sizes, SHARDS).astype(np.int64).tolist()
    files = tuple(StoredFile(f"train-{n:06}.tar", total, 0) for n, total in enumerate(totals))
    classes = tuple(f"n{number:08}" for number in range(CLASSES))
    write_dataset(
        folder, Dataset("simulated", classes, ".", {"train": Samples(files, columns, digests)})
    )


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _memory() -> dict[str, int]:
    """Return the resident memory, and the part that other processes cannot share, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    own = kilobytes["Private_Dirty"] + kilobytes["Shared_Dirty"]
    return {"resident": kilobytes["Rss"] // 1000, "own": own // 1000}


def _parser() -> ArgumentParser:
    parser = Parser(prog="benchmark.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("indexing", help=indexing.__doc__)
    command.add_argument("command", nargs=REMAINDER, help="arguments of prepare.py, without --out")
    command.set_defaults(run=indexing)
    command = commands.add_parser("opening", help=opening.__doc__)
    command.add_argument(
        "--samples",
        type=count,
        default=1_281_167,
        help="samples in the index (default: %(default)s)",
    )
    command.set_defaults(run=opening)
    return parser


if __name__ == "__main__":
    sys.exit(main())
