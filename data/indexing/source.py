"""The contract of a source of data: its arguments, and a survey of what there is to read."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path

from data.indexing.units import ReadingUnit
from pipeline.dataset.writing import Dataset


@dataclass(frozen=True, slots=True)
class Promise:
    """What a source is known to hold when it is complete."""

    name: str
    images: Mapping[str, int]
    """Images of each split."""
    classes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source consists of, before any image is read."""

    name: str
    root: str
    """The folder that the files lie in: absolute, or relative to the index."""
    splits: Mapping[str, Sequence[ReadingUnit]]
    classes: tuple[str, ...] | None
    """None where only the labels in the units tell how many there are."""
    class_names: tuple[str, ...] = ()
    """The classes in words, if they are known."""
    notes: tuple[str, ...] = ()
    """What the person should know, one sentence each."""
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of data that prepare.py can index."""

    name: str
    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    prepare: Callable[[Namespace], Survey | Dataset]
    """Say what there is to read, or (where images must be written first) all of it already; raise
    `ValueError` (place, value, remedy) for a mistake of the user's. The arguments include `out`."""


def add_reading_arguments(parser: ArgumentParser) -> None:
    """Add the options of every source that is surveyed: `workers`, `skip_bad` and `partial`."""
    parser.add_argument(
        "--workers",
        type=count,
        default=len(sched_getaffinity(0)),
        metavar="N",
        help="processes that read (default: the cores of this machine, %(default)s)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out what is no readable image"
    )
    parser.add_argument(
        "--partial", action="store_true", help="accept a part of what the source should hold"
    )


def count(text: str) -> int:
    """Parse a whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} must be a whole number from 1 up")
    return int(text)


def require_utf8(path: str) -> None:
    """Raise `ValueError` for a path that an index cannot hold."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path!a}: this name is not UTF-8; rename it") from error


def root_for(source: Path, out: Path) -> str:
    """Say how an index at `out` names `source`: relatively if one lies in the other.

    Then the two can move together; otherwise the index can move alone. Raise `ValueError` for a
    path that an index cannot hold.
    """
    source, out = source.resolve(), out.resolve()
    require_utf8(str(source))
    if source.is_relative_to(out):
        return str(source.relative_to(out))
    if out.is_relative_to(source):
        return "/".join([".."] * len(out.relative_to(source).parts)) or "."
    return str(source)
