"""Index a dataset for training: `python data/prepare.py SOURCE ... --out DIR`.

Images are indexed in place wherever possible. DIR is a dataset once it has manifest.json, which is
written last; preparing the same images again gives the same index.
"""

import errno
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the project need not be installed

from data.indexing.journal import forget_journal
from data.indexing.listing import Listing
from data.indexing.paths import require_folder
from data.indexing.reading import ReadingOptions, read_listing, request_of
from data.indexing.source import Source
from data.sources import (
    cifar10,
    digits,
    imagefolder,
    imagenet,
    kaggle,
    parquet,
    shards,
    webdataset,
)
from pipeline.dataset.index import Index, Manifest, read_manifest
from pipeline.dataset.writing import Dataset, write_dataset
from pipeline.system.command import Parser, command_line, plural, run_command

SOURCES = (
    imagenet.SOURCE,
    kaggle.SOURCE,
    webdataset.SOURCE,
    parquet.SOURCE,
    imagefolder.SOURCE,
    cifar10.SOURCE,
    digits.SOURCE,
    shards.SOURCE,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a dataset; return 0, or 2 after one message about a user's mistake."""
    arguments = _parser().parse_args(argv)
    return run_command(
        lambda: _run(arguments.chosen, arguments),
        name="prepare.py",
        interrupted="interrupted; run the same command again to continue",
        again="run the same command again",
    )


def _parser() -> ArgumentParser:
    parser = Parser(prog="prepare.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="SOURCE")
    for source in SOURCES:
        command = commands.add_parser(source.name, help=source.summary, description=source.summary)
        source.add_arguments(command)
        command.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="the folder of the dataset"
        )
        command.set_defaults(chosen=source)
    return parser


def _run(source: Source, arguments: Namespace) -> int:
    out: Path = arguments.out
    try:
        print(_prepare(source, arguments, out))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{source.name} needs {error.name}, which is not installed; run: pip install"
            " '.[prepare]'"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename or out
        raise ValueError(
            f"{place}: {error.strerror}; free some space, or choose another --out"
        ) from error
    return 0


def _prepare(source: Source, arguments: Namespace, out: Path) -> str:
    """Prepare the dataset; return what to print about it."""
    started = time.monotonic()
    require_folder("--out", out)
    before = _valid_manifest(out)
    dataset = source.prepare(arguments)
    if isinstance(dataset, Listing):
        options = ReadingOptions.of(arguments)
        if before and before.request == request_of(dataset, options):
            forget_journal(out)
            return f"nothing to do: {out} is complete\n{_next(out)}"
        dataset = read_listing(dataset, options, out=out)
    manifest = write_dataset(out, dataset)
    forget_journal(out)
    lines = [
        *(f"note: {note}" for note in dataset.notes),
        *_counts(dataset),
        f"fingerprint {manifest.fingerprint}{_changed(before, manifest)}",
        f"index in {out}, images in {(out / dataset.root).resolve()},"
        f" {time.monotonic() - started:.1f} s",
        _next(out),
    ]
    return "\n".join(lines)


def _valid_manifest(out: Path) -> Manifest | None:
    """Return the manifest of the dataset in `out`, if there is one and it is intact."""
    try:
        manifest = read_manifest(out)
        for split in manifest.samples:
            Index.open(out, split)
    except ValueError:
        return None
    return manifest


def _counts(dataset: Dataset) -> list[str]:
    classes = dataset.classes
    number = plural(len(classes), "class", "classes")
    lines = [f"{dataset.name}: {number}, {classes[0]} .. {classes[-1]}"]
    for split, samples in dataset.splits.items():
        size = int(samples.columns["size"].sum())
        lines.append(f"  {split:<6} {len(samples):>10,} images {size:>16,} bytes")
    return lines


def _changed(before: Manifest | None, now: Manifest) -> str:
    if before is None:
        return ""
    return " (as before)" if before.fingerprint == now.fingerprint else " (changed)"


def _next(out: Path) -> str:
    return f"next: {command_line('launch/submit.py', 'CONFIG', f'data.dir={out}')}"


if __name__ == "__main__":
    sys.exit(main())
