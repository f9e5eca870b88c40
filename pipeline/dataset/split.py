"""The training and validation images of a dataset, opened together."""

from dataclasses import dataclass

from pipeline.config.schema import Data
from pipeline.dataset.index import Index


@dataclass(frozen=True, slots=True)
class Split:
    """The indexes of the training and the validation images."""

    train: Index
    val: Index


def open_split(data: Data) -> Split:
    """Open both splits of a dataset.

    Raises `ValueError` if one is missing, damaged or empty.
    """
    split = Split(Index.open(data.dir, "train", data.root), Index.open(data.dir, "val", data.root))
    for index in (split.train, split.val):
        if len(index) == 0:
            raise ValueError(f"{data.dir}: the split {index.split!r} is empty; prepare it again")
    return split
