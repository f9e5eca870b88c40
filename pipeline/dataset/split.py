"""The two halves of a dataset, opened together."""

from dataclasses import dataclass

from pipeline.config.schema import Data
from pipeline.dataset.index import Index


@dataclass(frozen=True, slots=True)
class Split:
    """The two halves of a dataset."""

    train: Index
    val: Index


def open_split(data: Data) -> Split:
    """Open both halves of the dataset; raise `ValueError` if one is missing or empty."""
    split = Split(Index.open(data.dir, "train", data.root), Index.open(data.dir, "val", data.root))
    for index in (split.train, split.val):
        if len(index) == 0:
            raise ValueError(f"{data.dir}: split {index.split!r} is empty; prepare it again")
    return split
