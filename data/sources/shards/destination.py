"""The folder that shards are written to: empty, or with some or all of these shards."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from data.indexing.journal import JOURNAL, Journal
from data.indexing.paths import shown
from data.sources.shards.plan import ShardPlan
from data.sources.shards.shard import SHARDS, ShardUnit, shard_bytes, stored_order
from pipeline.dataset.index import MANIFEST, Index, find_manifest, read_manifest
from pipeline.dataset.samples import Samples
from pipeline.system.durable import write_whole

MARKER = ".shards.json"
"""The source and settings of the shards beside it; without it, a folder with content is refused."""


def refuse_other_content(out: Path, plan: ShardPlan, *, replace: bool) -> None:
    """Raises `ValueError` unless `out` is empty, or has shards of this plan.

    With `replace`, other shards and another index that prepare.py wrote there are removed, unless
    `out` has more than that.
    """
    if out.resolve() == plan.origin.folder.resolve():
        raise ValueError(f"--out {out} is the dataset itself; choose another folder")
    marker = out / SHARDS / MARKER
    if marker.is_file() and marker.read_bytes() == plan.identity():
        return
    is_ours = marker.is_file()
    if is_ours and not replace:
        raise ValueError(
            f"--out {out} has shards of other images, or with other settings (see {marker}); "
            "choose another folder, or replace them with --replace"
        )
    manifest = find_manifest(out) if replace else None
    replaced = [MANIFEST, *manifest.checksums] if manifest else []
    replaced += [JOURNAL] if is_ours else []
    strange = [name for name in _names(out) if name not in (SHARDS, *replaced)]
    if not is_ours:
        shards = _names(out / SHARDS)
        strange += [f"{SHARDS}/{name}" for name in shards if not name.endswith(".tmp")]
    if strange:
        raise ValueError(f"--out {out} contains {shown(strange)}; choose an empty folder")
    if is_ours and plan.has_images_in(out / SHARDS):
        raise ValueError(f"--out {out} has the images of {plan.origin.folder}; choose another")
    for name in replaced:
        (out / name).unlink(missing_ok=True)
    if is_ours:
        shutil.rmtree(out / SHARDS)


def is_finished(out: Path, request: object) -> bool:
    """Return whether `out` is the complete dataset of this request."""
    try:
        manifest = read_manifest(out)
        indexes = [Index.open(out, split) for split in manifest.samples]
    except ValueError:
        return False
    complete = all(
        _has_size(index.root / name, size)
        for index in indexes
        for name, size in zip(index.files.to_pylist(), index.file_sizes.tolist(), strict=True)
    )
    return complete and manifest.request == request


def require_room(out: Path, units: Mapping[str, Iterable[ShardUnit]]) -> None:
    """Raises `ValueError` if the disk is too small, as far as that can be known in advance."""
    missing = [
        unit
        for each in units.values()
        for unit in each
        if unit.reencoding is None and not (out / unit.file).is_file()
    ]
    needed = sum(_bytes_of(unit) for unit in missing)
    folder = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"--out {out}: the shards need {needed:,} bytes, but only {free:,} are free; free some "
            "space, or choose another folder"
        )


def claim(out: Path, plan: ShardPlan) -> None:
    """Mark `out` as ours; remove its manifest, and the temporary files of a killed process."""
    folder = out / SHARDS
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARKER, plan.identity())
    (out / MANIFEST).unlink(missing_ok=True)
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def journal_is_true(out: Path, units: Mapping[str, Iterable[ShardUnit]]) -> bool:
    """Return whether all shards in the journal are still there.

    Raises `ValueError` if another process is writing them.
    """
    if not (out / JOURNAL).exists():
        return True
    with Journal(out / JOURNAL) as journal:
        contents = [journal.find(unit) for each in units.values() for unit in each]
    return all(_is_stored(out, content.samples) for content in contents if content)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _bytes_of(unit: ShardUnit) -> int:
    sizes = unit.origin.index(unit.split).sizes
    first = unit.number * unit.images
    return shard_bytes(sizes[stored_order(len(sizes), first, first + unit.images)])


def _is_stored(out: Path, samples: Samples) -> bool:
    return all(_has_size(out / file.name, file.size) for file in samples.files)
