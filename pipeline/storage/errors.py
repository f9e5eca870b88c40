"""Images that cannot be read or decoded, and the messages that report them."""

import re

from pipeline.dataset.index import Index
from pipeline.system.command import plural

MOST_LISTED = 10

REPAIR_OR_SKIP = (
    "Repair the dataset and prepare it again, or set data.on_corrupt=skip: another image then"
    " replaces each of these, and the replacements are counted."
)
UNSUPPORTED = "4"
"""NVIMGCODEC_STATUS_CODESTREAM_UNSUPPORTED: nvImageCodec's message has this number only."""


class ImageError(ValueError):
    """Some images cannot be used; the message gives file, offset, size and reason of each."""

    def __init__(self, faults: list[str], remedy: str = REPAIR_OR_SKIP) -> None:
        self.faults = faults
        self.remedy = remedy
        shown = "".join(f"\n  {fault}" for fault in faults[:MOST_LISTED])
        more = f"\n  ... and {len(faults) - MOST_LISTED} more" if len(faults) > MOST_LISTED else ""
        what = plural(len(faults), "image")
        super().__init__(f"{what} of the dataset cannot be used:{shown}{more}\n{remedy}")

    def __reduce__(self) -> tuple[type["ImageError"], tuple[list[str], str]]:
        # Exceptions are pickled by their message; this one is sent to all ranks with its fields.
        return type(self), (self.faults, self.remedy)


def describe_fault(index: Index, sample: int, reason: str) -> str:
    """Return a sample's file, offset and size, and what is wrong with it."""
    return f"{place_of(index, sample)} ({int(index.sizes[sample])} bytes): {reason}"


def place_of(index: Index, sample: int) -> str:
    """Return a sample's file and offset."""
    return f"{index.path(sample)} at offset {int(index.offsets[sample])}"


def first_reason(message: str) -> str:
    """Return the cause of DALI's long error message about one image, in a few words."""
    if "Failed to decode" in message:
        return "cannot be decoded: truncated or damaged"
    status = re.search(r"nvImageCodec failure: '#(\d+)'", message)
    if status and status[1] == UNSUPPORTED:
        return "cannot be decoded: unknown or unsupported image format"
    if status:
        return f"cannot be decoded: damaged (nvImageCodec status {status[1]})"
    lines = [line.strip() for line in message.partition("encountered:")[2].splitlines()]
    return f"cannot be decoded: {next(filter(None, lines), 'no reason given')}"
