"""What a source consists of, listed before any image is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.indexing.unit import ReadingUnit


@dataclass(frozen=True, slots=True)
class ExpectedCounts:
    """The expected size of a complete source."""

    name: str
    images: Mapping[str, int]
    """Images of each split."""
    classes: int


IMAGENET_COUNTS = ExpectedCounts(
    "ImageNet (ILSVRC2012)", {"train": 1_281_167, "val": 50_000}, classes=1000
)


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything to read from a source."""

    name: str
    root: str
    """The folder that the files lie in: absolute, or relative to the index."""
    splits: Mapping[str, Sequence[ReadingUnit]]
    classes: tuple[str, ...] | None
    """None if only the labels in the units show how many there are."""
    class_names: tuple[str, ...] = ()
    """The classes in words, if they are known."""
    notes: tuple[str, ...] = ()
    """What the user should know, one sentence each."""
    expected: ExpectedCounts | None = None
    val_fraction: float | None = None
    """The fraction of the training images that becomes the split `val`, if there is no other."""
