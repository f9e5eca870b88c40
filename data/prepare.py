"""Index a dataset for training: `python data/prepare.py SOURCE ... --out DIR`.

Images are indexed in place wherever possible. DIR is a dataset once it has manifest.json, which is
written last; preparing the same images again gives the same index.
"""

import errno
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the project need not be installed

from data.checking.new_dataset import without_unusable
from data.indexing.journal import forget_journal
from data.indexing.listing import Listing
from data.indexing.paths import require_folder
from data.indexing.reading import ReadingOptions, read_listing, request_of
from data.indexing.remarks import remarks
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
from pipeline.dataset.index import Index, Manifest, find_manifest
from pipeline.dataset.writing import Dataset, another_dataset, write_dataset
from pipeline.system.command import Parser, command_line, plural, run_command
from pipeline.system.text import size

HOW = {"chosen", "decode", "out", "partial", "replace", "skip_bad", "workers"}
"""Arguments that do not decide which dataset is meant."""

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
        command.add_argument(
            "--replace",
            action="store_true",
            help="replace another dataset in DIR, or prepare a complete one again",
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
    before, asked = find_manifest(out), _asked(source, arguments)
    is_known = before is not None and before.asked == asked
    arguments.may_replace = arguments.replace or is_known
    dataset = source.prepare(arguments)
    if isinstance(dataset, Listing):
        options = ReadingOptions.of(arguments)
        if before and not arguments.replace:
            if (before.name, before.root) != (dataset.name, dataset.root):
                raise another_dataset(out, before)
            if before.request == request_of(dataset, options) and _is_intact(out, before):
                forget_journal(out)
                return f"nothing to do: {out} is complete\n{_next(out)}"
        dataset = read_listing(dataset, options, out=out)
    if _decodes(arguments):
        dataset = without_unusable(dataset, ReadingOptions.of(arguments), out=out)
    dataset = replace(dataset, asked=asked)
    manifest = write_dataset(out, dataset, replace=arguments.may_replace)
    forget_journal(out)
    lines = [
        *(f"note: {note}" for note in (*dataset.notes, *remarks(dataset))),
        *_counts(dataset),
        f"fingerprint {manifest.fingerprint}{_changed(before, manifest)}",
        f"index in {out}, images in {(out / dataset.root).resolve()},"
        f" {time.monotonic() - started:.1f} s",
        *([_not_decoded(out)] if _decodes(arguments) is False else []),
        _next(out),
    ]
    return "\n".join(lines)


def _decodes(arguments: Namespace) -> bool | None:
    """Return whether images are decoded; None for a source that encodes them itself."""
    return getattr(arguments, "decode", None)


def _asked(source: Source, arguments: Namespace) -> dict[str, Any]:
    """Return what the user asked for as data, without how it is read and where it is written."""
    given = {name: value for name, value in vars(arguments).items() if name not in HOW}
    asked = {name: _plain(value) for name, value in sorted(given.items())}
    return {"kind": source.name, **asked}


def _plain(value: Any) -> Any:
    return str(value.absolute()) if isinstance(value, Path) else value


def _is_intact(out: Path, manifest: Manifest) -> bool:
    try:
        for split in manifest.samples:
            Index.open(out, split)
    except ValueError:
        return False
    return True


def _counts(dataset: Dataset) -> list[str]:
    classes = dataset.classes
    number = plural(len(classes), "class", "classes")
    lines = [f"{dataset.name}: {number}, {classes[0]} .. {classes[-1]}"]
    for split, samples in dataset.splits.items():
        stored = size(int(samples.columns["size"].sum()))
        lines.append(f"  {split:<6} {len(samples):>10,} images {stored:>10}")
    return lines


def _changed(before: Manifest | None, now: Manifest) -> str:
    if before is None:
        return ""
    return " (as before)" if before.fingerprint == now.fingerprint else " (changed)"


def _not_decoded(out: Path) -> str:
    command = command_line("data/verify.py", out, "--decode")
    return f"images were not checked for truncation; to check: {command}"


def _next(out: Path) -> str:
    return f"next: {command_line('launch/submit.py', 'CONFIG', f'data.dir={out}')}"


if __name__ == "__main__":
    sys.exit(main())
