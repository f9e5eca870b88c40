"""A source of data that prepare.py can index, and the arguments that several sources share."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path

from data.indexing.listing import Listing
from pipeline.dataset.writing import Dataset
from pipeline.system.command import count


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of data that prepare.py can index."""

    name: str
    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    prepare: Callable[[Namespace], Listing | Dataset]
    """List what to read, or return the dataset if its images must be written first.

    The arguments include `out`, `replace` (as the user says) and `may_replace` (also true if the
    dataset in `out` was prepared with the same arguments). Raises `ValueError` (place, value,
    remedy) for a user's mistake."""


def add_reading_arguments(parser: ArgumentParser) -> None:
    """Add `workers`, `skip_bad`, `partial` and `decode`, the options of every listed source."""
    parser.add_argument(
        "--workers",
        type=count,
        default=len(sched_getaffinity(0)),
        metavar="N",
        help="processes that read (default: the cores of this machine, %(default)s)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that are not readable images"
    )
    parser.add_argument(
        "--decode",
        action="store_true",
        help="also decode every image as training does, to find truncated ones",
    )
    parser.add_argument("--partial", action="store_true", help="accept an incomplete source")


def read_classes(path: Path | None) -> tuple[str, ...] | None:
    """Read --classes: one class a line, in the order of the labels; None without a file."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--classes {path} cannot be read ({error}); give a text file with one class a line"
        ) from error
    classes = tuple(name.strip() for name in lines if name.strip())
    if len(set(classes)) < len(classes) or not classes:
        raise ValueError(f"--classes {path} must name each class once, one a line")
    return classes
