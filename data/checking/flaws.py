"""What can be wrong with a stored image, or odd about it: the words that verifying uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Fault = Literal[
    "missing",
    "truncated",
    "replaced",
    "changed",
    "unreadable",
    "empty",
    "corrupt",
    "wrong-size",
]
Finding = Literal["not-jpeg", "cmyk", "large", "small"]

SMALL_SIDE_PIXELS = 16
LARGE_PIXELS = 50_000_000
LARGE_TIMES_MEDIAN = 16

FAULTS: Mapping[Fault, str] = {
    "missing": "the file is not there",
    "truncated": "the file ends before the image does",
    "replaced": "no image of the file is as it was indexed",
    "changed": "the bytes are not those that were indexed",
    "unreadable": "the file cannot be read",
    "empty": "the image has no bytes",
    "corrupt": "the image cannot be decoded",
    "wrong-size": "width and height are not those of the index",
}
"""An image has at most one of these, and cannot be trained on as the index has it."""
FINDINGS: Mapping[Finding, str] = {
    "not-jpeg": "of another format, in a split of JPEGs",
    "cmyk": "a JPEG of four channels, CMYK or YCCK",
    "large": f"over {LARGE_PIXELS // 1_000_000} megapixels, or {LARGE_TIMES_MEDIAN} medians",
    "small": f"a side below {SMALL_SIDE_PIXELS} pixels",
}
"""An image may have any of these, and is trained on nevertheless."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing about sample number `sample` of a split; `reason` says it of this image."""

    sample: int
    kind: Fault | Finding
    reason: str

    @property
    def is_fault(self) -> bool:
        """Whether the image cannot be used."""
        return self.kind in FAULTS
