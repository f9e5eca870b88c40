"""Index a dataset for training: `python data/prepare.py SOURCE ... --out DIR`.

Images are indexed where they lie wherever that is possible. DIR is a dataset once it holds
manifest.json, which is written last; preparing again gives the same index.
"""

import errno
import os
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a checkout that is not installed

from data.indexing.source import Source, Survey
from data.indexing.survey import Rules, carry_out, request_of
from data.indexing.units import forget_journal
from data.sources import cifar10, digits, imagefolder, imagenet, kaggle, webdataset
from data.sources.parquet import source as parquet
from data.sources.shards import source as shards
from pipeline.dataset.index import Index, Manifest, read_manifest
from pipeline.dataset.writing import Dataset, write_dataset

SOURCES: tuple[Source, ...] = (
    imagenet.SOURCE,
    kaggle.SOURCE,
    webdataset.SOURCE,
    parquet.SOURCE,
    imagefolder.SOURCE,
    cifar10.SOURCE,
    digits.SOURCE,
    shards.SOURCE,
)
USER_MISTAKE = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a dataset; return 0, or 2 after one message about a mistake of the user's."""
    arguments = _parser().parse_args(argv)
    try:
        _prepare(arguments.chosen, arguments)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(_explained(error, arguments.out))
    except KeyboardInterrupt:
        _say("prepare.py: interrupted; give the same command again to go on", sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="prepare.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="SOURCE")
    for source in SOURCES:
        command = commands.add_parser(source.name, help=source.summary, description=source.summary)
        source.add_arguments(command)
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset")
        command.set_defaults(chosen=source)
    return parser


def _prepare(source: Source, arguments: Namespace) -> None:
    out: Path = arguments.out
    started = time.monotonic()
    _require_writable(out)
    before = _valid_manifest(out)
    dataset = source.prepare(arguments)
    if isinstance(dataset, Survey):
        rules = Rules.of(arguments)
        if before and before.request == request_of(dataset, rules):
            forget_journal(out)
            _say(f"nothing to do: {out} holds all of it\n{_next(out)}", sys.stdout)
            return
        dataset = carry_out(dataset, rules, out=out)
    manifest = write_dataset(out, dataset)
    forget_journal(out)
    for note in dataset.notes:
        _say(f"note: {note}", sys.stdout)
    seconds = time.monotonic() - started
    _say(_summary(dataset, manifest, out=out, before=before, seconds=seconds), sys.stdout)


def _require_writable(out: Path) -> None:
    """Raise `ValueError` unless `out` is, or can become, a folder that we may write in."""
    nearest = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise ValueError(f"--out {out}: {nearest} is no folder; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--out {out}: no right to write in {nearest}; choose another folder")


def _valid_manifest(out: Path) -> Manifest | None:
    """Return the manifest of the dataset that `out` holds already, if all of it is sound."""
    try:
        manifest = read_manifest(out)
        for split in manifest.samples:
            Index.open(out, split)
    except ValueError:
        return None
    return manifest


def _summary(
    dataset: Dataset, manifest: Manifest, *, out: Path, before: Manifest | None, seconds: float
) -> str:
    classes = dataset.classes
    changed = ""
    if before:
        same = before.fingerprint == manifest.fingerprint
        changed = " (as before)" if same else " (it was another)"
    lines = [f"{dataset.name}: {len(classes):,} classes, {classes[0]} .. {classes[-1]}"]
    for split, samples in dataset.splits.items():
        size = int(samples.columns["size"].sum())
        lines.append(f"  {split:<6} {len(samples):>10,} images {size:>16,} bytes")
    images = (out / dataset.root).resolve()
    lines += [
        f"fingerprint {manifest.fingerprint}{changed}",
        f"index in {out}, images in {images}, {seconds:.1f} s",
        _next(out),
    ]
    return "\n".join(lines)


def _next(out: Path) -> str:
    return f"next: python launch/submit.py CONFIG data.dir={shlex.quote(str(out))}"


def _explained(error: OSError, out: Path) -> str:
    place = error.filename or out
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            remedy = "free some space, or choose another --out"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            remedy = "get the right to use it, or choose another --out"
        case _:
            remedy = "nothing is prepared"
    return f"{place}: {error.strerror or error}; {remedy}"


def _refuse(message: str) -> int:
    _say(f"prepare.py: {message}", sys.stderr)
    return USER_MISTAKE


def _say(text: str, stream: TextIO) -> None:
    """Print `text`, in which names of files need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode(), file=stream)


if __name__ == "__main__":
    sys.exit(main())
