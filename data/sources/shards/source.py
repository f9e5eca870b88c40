"""WebDataset shards written from any dataset: few large files, read from front to back.

The shards are a dataset of ours as well. Images keep their bytes, or are made smaller on the way.
"""

import json
import shutil
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from data.indexing.source import Source, Survey, add_reading_arguments, count
from data.indexing.survey import Rules, carry_out, request_of, shown
from data.indexing.units import JOURNAL, Journal, forget_journal
from data.sources.shards.reencoding import Reencoding, encoder
from data.sources.shards.unit import LAYOUT, SHARDS, Origin, ShardUnit, shard_bytes, stored_order
from pipeline.dataset.index import MANIFEST, Index, Manifest, read_manifest
from pipeline.dataset.samples import Samples, file_state
from pipeline.dataset.writing import Dataset
from pipeline.system.durable import write_whole

IMAGES_A_SHARD = 1024
QUALITY = 90
MARKER = ".shards.json"
"""Beside the shards: what they are made from, and how. No other folder is ever written to."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Which images go into shards, and how."""

    origin: Origin
    manifest: Manifest
    images: int
    """Images of a shard."""
    reencodings: Mapping[str, Reencoding | None]
    """For each split; None where the images keep their bytes."""

    def identity(self) -> bytes:
        """Stand for the bytes of all shards, if all images can be used."""
        told = {split: how and asdict(how) for split, how in self.reencodings.items()}
        content = {
            "fingerprint": self.origin.fingerprint,
            "images_per_shard": self.images,
            "reencoded": told,
            "encoder": encoder() if any(told.values()) else None,
            "layout": LAYOUT,
        }
        return json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"

    def name(self) -> str:
        """The name of the dataset, which also says how its images were compressed again."""
        ways = {split: str(how) for split, how in self.reencodings.items() if how}
        if len(ways) == len(self.reencodings):
            told = [*dict.fromkeys(ways.values())]
        else:
            told = [f"{split}: {way}" for split, way in ways.items()]
        return " ".join([self.manifest.name, "in shards", *(f"({way})" for way in told)])


def survey(plan: ShardPlan, out: Path) -> Survey:
    """Lay out the shards of every split of a dataset; raise `ValueError` if it cannot be read."""
    splits = {split: _units(plan, split, out) for split in plan.reencodings}
    notes: list[str] = []
    if plan.reencodings.get("val"):
        notes.append(
            "validation images are compressed again too, which changes what is evaluated; "
            "--splits train leaves them as they are"
        )
    return Survey(
        name=plan.name(),
        root=".",
        splits=splits,
        classes=plan.manifest.classes,
        class_names=plan.manifest.class_names,
        notes=tuple(notes),
    )


def write(plan: ShardPlan, rules: Rules, *, out: Path) -> Survey | Dataset:
    """Write the shards to `out/shards`; return the survey alone if they are all there already.

    Shards that an earlier attempt finished are kept. Raise `ValueError` if `out` holds anything
    else, if the disk has no room for images that keep their bytes, and for bad images.
    """
    _refuse_others(out, plan)
    surveyed = survey(plan, out)
    if _is_finished(out, request_of(surveyed, rules)):
        return surveyed
    _require_room(out, surveyed)
    if not _journal_is_true(out, surveyed):
        forget_journal(out)
    _claim(out, plan)
    return carry_out(surveyed, rules, out=out)


def _units(plan: ShardPlan, split: str, out: Path) -> list[ShardUnit]:
    index = plan.origin.index(split)
    states = _file_states(index)
    return [
        ShardUnit(
            origin=plan.origin,
            split=split,
            number=number,
            images=plan.images,
            reencoding=plan.reencodings[split],
            out=out,
            state=xxhash.xxh3_128_hexdigest(states[np.unique(index.file_ids[samples])].tobytes()),
            size=int(index.sizes[samples].sum()),
        )
        for number, samples in enumerate(_by_shard(len(index), plan.images))
    ]


def _by_shard(count: int, images: int) -> Iterator[NDArray[np.int64]]:
    return (stored_order(count, first, first + images) for first in range(0, count, images))


def _file_states(index: Index) -> NDArray[np.int64]:
    """Size in bytes and time of modification of each file: (files, 2), -1 for one that is lost."""
    states = np.full((len(index.files), 2), -1, np.int64)
    for number, name in enumerate(index.files.to_pylist()):
        try:
            states[number] = file_state(index.root / name)
        except OSError:
            continue
    return states


def _refuse_others(out: Path, plan: ShardPlan) -> None:
    """Raise `ValueError` unless `out` is free, or holds these very shards or a part of them."""
    if out.resolve() == plan.origin.folder.resolve():
        raise ValueError(f"--out {out} is the dataset itself; choose another folder")
    marker = out / SHARDS / MARKER
    if marker.is_file():
        if marker.read_bytes() != plan.identity():
            raise ValueError(
                f"--out {out} holds shards of other images, or made in another way (see {marker}); "
                "remove it, or choose another folder"
            )
        return
    strange = [name for name in _names(out) if name != SHARDS]
    strange += [f"{SHARDS}/{name}" for name in _names(out / SHARDS) if not name.endswith(".tmp")]
    if strange:
        raise ValueError(f"--out {out} holds {shown(strange)}; choose an empty folder")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _is_finished(out: Path, request: object) -> bool:
    try:
        manifest = read_manifest(out)
        indexes = [Index.open(out, split) for split in manifest.samples]
    except ValueError:
        return False
    there = all(
        _is_there(index.root / name, size)
        for index in indexes
        for name, size in zip(index.files.to_pylist(), index.file_sizes.tolist(), strict=True)
    )
    return there and manifest.request == request


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _require_room(out: Path, surveyed: Survey) -> None:
    """Raise `ValueError` if the disk is too small, as far as that can be known beforehand."""
    missing = [
        unit
        for units in surveyed.splits.values()
        for unit in units
        if isinstance(unit, ShardUnit) and unit.reencoding is None and not _written(unit)
    ]
    needed = sum(_bytes_of(unit) for unit in missing)
    folder = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"--out {out}: the shards need {needed:,} bytes, but {free:,} are free; free some "
            "space, or choose another folder"
        )


def _written(unit: ShardUnit) -> bool:
    return (unit.out / unit.file).is_file()


def _bytes_of(unit: ShardUnit) -> int:
    sizes = unit.origin.index(unit.split).sizes
    first = unit.number * unit.images
    return shard_bytes(sizes[stored_order(len(sizes), first, first + unit.images)])


def _claim(out: Path, plan: ShardPlan) -> None:
    """Mark `out` as ours; what index it has is void, and what a killed process left is removed."""
    folder = out / SHARDS
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARKER, plan.identity())
    (out / MANIFEST).unlink(missing_ok=True)
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _journal_is_true(out: Path, surveyed: Survey) -> bool:
    """Whether all shards that were noted as written are there still.

    Raise `ValueError` if another process writes them right now.
    """
    if not (out / JOURNAL).exists():
        return True
    with Journal(out / JOURNAL) as journal:
        notes = [journal.find(unit) for units in surveyed.splits.values() for unit in units]
    return all(_is_stored(out, note.samples) for note in notes if note)


def _is_stored(out: Path, samples: Samples) -> bool:
    return all(_is_there(out / file.name, file.size) for file in samples.files)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("index", type=Path, metavar="INDEX", help="the dataset to write out")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where its images are, if moved")
    parser.add_argument(
        "--shorter-side",
        type=count,
        metavar="PIXELS",
        help="make images smaller whose shorter side is longer than this",
    )
    parser.add_argument(
        "--quality",
        type=_quality,
        metavar="Q",
        help=f"of JPEGs that are compressed again, 1 to 100 (default {QUALITY}); without "
        "--shorter-side, all images that it makes smaller are",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        metavar="SPLIT",
        help="splits to compress again, as in --splits train (default: all)",
    )
    parser.add_argument(
        "--shard-images",
        type=count,
        default=IMAGES_A_SHARD,
        metavar="N",
        help="images of a shard (default %(default)s)",
    )
    add_reading_arguments(parser)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ArgumentTypeError(f"{text!r} must be a whole number from 1 to 100")
    return int(text)


def _run(arguments: Namespace) -> Survey | Dataset:
    return write(_plan(arguments), Rules.of(arguments), out=arguments.out)


def _plan(arguments: Namespace) -> ShardPlan:
    manifest = read_manifest(arguments.index)
    splits: Sequence[str] | None = arguments.splits
    unknown = [split for split in splits or () if split not in manifest.samples]
    if unknown:
        have = ", ".join(manifest.samples)
        raise ValueError(f"--splits {shown(unknown)}: {arguments.index} has only {have}")
    asked = arguments.shorter_side is not None or arguments.quality is not None
    if splits is not None and not asked:
        raise ValueError("--splits says what to compress again; add --shorter-side or --quality")
    how = Reencoding(arguments.shorter_side, arguments.quality or QUALITY) if asked else None
    return ShardPlan(
        Origin(arguments.index, arguments.root, manifest.fingerprint),
        manifest,
        arguments.shard_images,
        {split: how if splits is None or split in splits else None for split in manifest.samples},
    )


SOURCE = Source("shards", "WebDataset shards, written from a dataset", _add_arguments, _run)
