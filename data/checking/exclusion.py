"""A dataset made from another one by leaving images out; files are not touched."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.checking.verification import Verdict
from data.indexing.paths import require_folder, root_for, shown
from pipeline.dataset.index import Index, Manifest, find_manifest
from pipeline.dataset.samples import COLUMNS, Samples, StoredFile
from pipeline.dataset.writing import Dataset, another_dataset, write_dataset
from pipeline.storage.files import FileState
from pipeline.system.command import plural

COLUMN_OF = {
    "file": "file_ids",
    "offset": "offsets",
    "size": "sizes",
    "label": "labels",
    "width": "widths",
    "height": "heights",
}
assert set(COLUMN_OF) == set(COLUMNS)


def require_place(out: Path, folder: Path, *, replace: bool) -> None:
    """Raises `ValueError` unless `out` can become a dataset that is not the one in `folder`.

    A dataset there must have been made from the one in `folder`, unless `replace`.
    """
    if out.resolve() == folder.resolve():
        raise ValueError(f"--exclude {out} is the dataset itself; choose another folder")
    require_folder("--exclude", out)
    before = find_manifest(out)
    if before and not replace and before.request.get("dataset") != str(folder.absolute()):
        raise another_dataset(out, before)


def write_without(
    out: Path,
    verdicts: Sequence[Verdict],
    *,
    also: frozenset[str],
    made_from: Mapping[str, Any],
    replace: bool = False,
) -> Manifest:
    """Write a dataset without the faulty images, and without those with a finding in `also`.

    Files are recorded in their state when verified. Raises `ValueError` if a class would be left
    without training images, or a split without images, or, unless `replace`, if `out` has a dataset
    of other images.
    """
    manifest, root = verdicts[0].index.manifest, verdicts[0].index.root
    left_out = {verdict.index.split: verdict.samples_with(also) for verdict in verdicts}
    for verdict in verdicts:
        _require_images(verdict.index, left_out[verdict.index.split])
    request = {
        "source": "verify",
        **made_from,
        "fingerprint": manifest.fingerprint,
        "also": sorted(also),
        "left_out": {split: len(samples) for split, samples in left_out.items()},
    }
    splits = {
        verdict.index.split: samples_without(
            verdict.index, left_out[verdict.index.split], verdict.states
        )
        for verdict in verdicts
    }
    dataset = Dataset(
        name=manifest.name,
        classes=manifest.classes,
        root=root_for(root, out),
        splits=splits,
        class_names=manifest.class_names,
        request=request,
    )
    return write_dataset(out, dataset, replace=replace)


def _require_images(index: Index, left_out: NDArray[np.int64]) -> None:
    classes = index.manifest.classes
    before = np.bincount(index.labels, minlength=len(classes))
    after = before - np.bincount(index.labels[left_out], minlength=len(classes))
    remedy = "no dataset is written; fetch the files again"
    if not after.any():
        raise ValueError(f"--exclude: split {index.split!r} would have no image left; {remedy}")
    emptied = [classes[label] for label in np.flatnonzero((before > 0) & (after == 0)).tolist()]
    if emptied and index.split == "train":
        raise ValueError(
            f"--exclude: no training image would be left of {shown(emptied)} "
            f"({len(emptied):,} of {plural(len(classes), 'class', 'classes')}); {remedy}"
        )


def samples_without(
    index: Index, left_out: NDArray[np.int64], states: Sequence[FileState]
) -> Samples:
    """Return the samples of a split, without some; `states` are those of its files."""
    kept = np.ones(len(index), bool)
    kept[left_out] = False
    columns = {name: getattr(index, place)[kept] for name, place in COLUMN_OF.items()}
    names: list[str] = index.files.to_pylist()
    files = tuple(
        # No sample of a missing file is kept.
        StoredFile(name, *((-1, -1) if isinstance(state, str) else state))
        for name, state in zip(names, states, strict=True)
    )
    return Samples(files, columns, index.digests[kept])
