"""What the user should know about the images of a dataset, once all of them are known."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.indexing.paths import printable, shown
from pipeline.dataset.samples import Samples
from pipeline.dataset.writing import Dataset
from pipeline.system.command import plural

UNEQUAL = 10
"""Classes are very unequal if one has this many times the training images of another."""
PAIRS = 3
"""Pairs of equal images whose names are shown."""


def remarks(dataset: Dataset) -> Iterator[str]:
    """Yield a sentence for each thing that is odd about the classes and images of a dataset."""
    if {"train", "val"} <= dataset.splits.keys():
        train, val = dataset.splits["train"], dataset.splits["val"]
        yield from _unequal(train.labels, dataset.classes)
        yield from _not_validated(train.labels, val.labels, dataset.classes)
        yield from _in_both(train, val)


def _unequal(labels: NDArray[np.int32], classes: Sequence[str]) -> Iterator[str]:
    counts = np.bincount(labels, minlength=len(classes))
    least = int(np.where(counts, counts, counts.max()).argmin())
    most = int(counts.argmax())
    if counts[most] >= UNEQUAL * counts[least]:
        yield (
            f"the classes are very unequal: {plural(int(counts[least]), 'training image')} of"
            f" {printable(classes[least])}, but {counts[most]:,} of {printable(classes[most])}"
        )


def _not_validated(
    train: NDArray[np.int32], val: NDArray[np.int32], classes: Sequence[str]
) -> Iterator[str]:
    missing = [classes[int(label)] for label in np.setdiff1d(train, val)]
    if missing:
        verb = "has" if len(missing) == 1 else "have"
        number = plural(len(missing), "class", "classes")
        yield f"{number} {verb} no validation image: {shown(missing)}"


def _in_both(train: Samples, val: Samples) -> Iterator[str]:
    _, of_train, of_val = np.intersect1d(_keys(train), _keys(val), return_indices=True)
    if not len(of_train):
        return
    pairs = [
        f"{printable(_name(train, int(one)))} = {printable(_name(val, int(other)))}"
        for one, other in zip(of_train[:PAIRS], of_val[:PAIRS], strict=True)
    ]
    more = f" and {len(of_train) - PAIRS:,} more" if len(of_train) > PAIRS else ""
    number = plural(len(of_train), "image is", "images are")
    yield f"{number} in both train and val: {', '.join(pairs)}{more}"


def _keys(samples: Samples) -> NDArray[np.void]:
    return np.ascontiguousarray(samples.digests).view("V16").reshape(-1)


def _name(samples: Samples, sample: int) -> str:
    offset = int(samples.columns["offset"][sample])
    file = samples.files[int(samples.columns["file"][sample])].name
    return f"{file} at byte {offset}" if offset else file
