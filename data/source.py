"""The contract of a source of data: its arguments, and a dataset ready to be indexed."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path

from pipeline.dataset.index import Sample


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a source found: all that an index is written from."""

    name: str
    classes: tuple[str, ...]
    root: str
    """The folder that the samples' files lie in: absolute, or relative to the index."""
    splits: Mapping[str, Sequence[Sample]]
    notes: tuple[str, ...] = ()
    """What the person should know, one sentence each: files ignored, images left out."""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of data that prepare.py can index."""

    name: str
    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    prepare: Callable[[Namespace], Dataset]
    """Gather the dataset; raise `ValueError` (place, value, remedy) for a mistake of the user's."""


def add_reading_arguments(parser: ArgumentParser) -> None:
    """Add the options of every source that reads image files: `workers` and `skip_bad`."""
    parser.add_argument(
        "--workers",
        type=_count,
        default=len(sched_getaffinity(0)),
        metavar="N",
        help="processes that read images (default: the cores of this machine, %(default)s)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that are no readable image"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} must be a whole number from 1 up")
    return int(text)


def root_for(source: Path, out: Path) -> str:
    """Say how an index at `out` names `source`: relatively if one lies in the other.

    Then the two can move together; otherwise the index can move alone.
    """
    source, out = source.resolve(), out.resolve()
    if source.is_relative_to(out):
        return str(source.relative_to(out))
    if out.is_relative_to(source):
        return "/".join([".."] * len(out.relative_to(source).parts)) or "."
    return str(source)
