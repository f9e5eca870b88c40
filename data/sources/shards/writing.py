"""Shards written, or continued, from the command line."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from data.indexing.journal import forget_journal
from data.indexing.listing import Listing
from data.indexing.paths import shown
from data.indexing.reading import ReadingOptions, read_listing, request_of
from data.indexing.source import Source, add_reading_arguments
from data.sources.shards.destination import (
    claim,
    is_finished,
    journal_is_true,
    refuse_other_content,
    require_room,
)
from data.sources.shards.plan import ShardPlan
from data.sources.shards.reencoding import Reencoding
from data.sources.shards.shard import Origin
from pipeline.dataset.index import read_manifest
from pipeline.dataset.writing import Dataset
from pipeline.system.command import count

IMAGES_A_SHARD = 1024
QUALITY = 90


def write_shards(
    plan: ShardPlan, options: ReadingOptions, *, out: Path, replace: bool = False
) -> Listing | Dataset:
    """Write the shards to `out/shards`; return only their listing if all of them are there.

    Shards that an earlier attempt finished are kept. Raises `ValueError` if `out` has any other
    content, unless that is a dataset and `replace` is set, if the disk is too small for images that
    keep their bytes, or if images are bad.
    """
    refuse_other_content(out, plan, replace=replace)
    units = plan.units(out)
    listing = plan.listing(units)
    if is_finished(out, request_of(listing, options)):
        return listing
    require_room(out, units)
    if not journal_is_true(out, units):
        forget_journal(out)
    claim(out, plan)
    return read_listing(listing, options, out=out)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("index", type=Path, metavar="INDEX", help="the dataset to write as shards")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="where its images are, if they were moved"
    )
    parser.add_argument(
        "--shorter-side",
        type=count,
        metavar="PIXELS",
        help="resize images whose shorter side is longer than this",
    )
    parser.add_argument(
        "--quality",
        type=_quality,
        metavar="Q",
        help=f"JPEG quality of images that are compressed again, 1 to 100 (default: {QUALITY}); "
        "without --shorter-side, an image keeps its bytes unless this makes it smaller",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        metavar="SPLIT",
        help="splits to compress again, such as train (default: all)",
    )
    parser.add_argument(
        "--shard-images",
        type=count,
        default=IMAGES_A_SHARD,
        metavar="N",
        help="images in a shard (default: %(default)s)",
    )
    add_reading_arguments(parser)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ArgumentTypeError(f"{text!r} must be a whole number from 1 to 100")
    return int(text)


def _prepare(arguments: Namespace) -> Listing | Dataset:
    options = ReadingOptions.of(arguments)
    plan = _plan(arguments)
    return write_shards(plan, options, out=arguments.out, replace=arguments.replace)


def _plan(arguments: Namespace) -> ShardPlan:
    manifest = read_manifest(arguments.index)
    splits: Sequence[str] | None = arguments.splits
    unknown = [split for split in splits or () if split not in manifest.samples]
    if unknown:
        have = ", ".join(manifest.samples)
        raise ValueError(f"--splits {shown(unknown)}: {arguments.index} has only {have}")
    asked = arguments.shorter_side is not None or arguments.quality is not None
    if splits is not None and not asked:
        raise ValueError("--splits needs --shorter-side or --quality; add one of them")
    how = Reencoding(arguments.shorter_side, arguments.quality or QUALITY) if asked else None
    return ShardPlan(
        Origin(arguments.index, arguments.root, manifest.fingerprint),
        manifest,
        arguments.shard_images,
        {split: how if splits is None or split in splits else None for split in manifest.samples},
    )


SOURCE = Source("shards", "WebDataset shards, written from a dataset", _add_arguments, _prepare)
