"""Faults of a stored image, and findings that are merely odd."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.augment.crops import MOST_ELONGATED

FaultKind = Literal[
    "missing",
    "truncated",
    "replaced",
    "changed",
    "unreadable",
    "empty",
    "corrupt",
    "wrong-size",
]
FindingKind = Literal["not-jpeg", "cmyk", "colours", "large", "small", "elongated"]

SMALL_SIDE_PIXELS = 16
LARGE_PIXELS = 50_000_000
LARGE_TIMES_MEDIAN = 16

FAULTS: Mapping[FaultKind, str] = {
    "missing": "the file is missing",
    "truncated": "the file ends before the image does",
    "replaced": "no image in the file matches the index",
    "changed": "the bytes do not match the index",
    "unreadable": "the file cannot be read",
    "empty": "the image has no bytes",
    "corrupt": "the image cannot be decoded",
    "wrong-size": "width and height do not match the index",
}
"""An image has at most one of these, and cannot be used for training."""
FINDINGS: Mapping[FindingKind, str] = {
    "not-jpeg": "in another format, in a split of JPEGs",
    "cmyk": "a JPEG with four channels, CMYK or YCCK",
    "colours": "other programs may show different colours than training sees",
    "large": f"over {LARGE_PIXELS // 1_000_000} megapixels, or {LARGE_TIMES_MEDIAN} x the median",
    "small": f"a side below {SMALL_SIDE_PIXELS} pixels",
    "elongated": f"a side over {MOST_ELONGATED} times the other; only its centre is evaluated",
}
"""An image may have any of these, and is still used for training."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A fault or finding of sample number `sample` of a split, with the details in `reason`."""

    sample: int
    kind: FaultKind | FindingKind
    reason: str

    @property
    def is_fault(self) -> bool:
        """Whether the image cannot be used."""
        return self.kind in FAULTS
