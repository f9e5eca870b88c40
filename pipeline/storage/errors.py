"""Images that cannot be read or decoded, said so that a person can find them."""

import re

from pipeline.dataset.index import Index

MOST_LISTED = 10

REPAIR_OR_SKIP = (
    "Repair and prepare the dataset again, or set data.on_corrupt=skip: another image then stands"
    " in for each, and the replacements are counted."
)
UNSUPPORTED = "4"
"""NVIMGCODEC_STATUS_CODESTREAM_UNSUPPORTED: its messages hold a number in place of words."""


class ImageError(ValueError):
    """Some images cannot be used; the message names file, offset, size and reason of each."""

    def __init__(self, faults: list[str], remedy: str = REPAIR_OR_SKIP) -> None:
        self.faults = faults
        self.remedy = remedy
        shown = "".join(f"\n  {fault}" for fault in faults[:MOST_LISTED])
        more = f"\n  ... and {len(faults) - MOST_LISTED} more" if len(faults) > MOST_LISTED else ""
        what = "an image" if len(faults) == 1 else f"{len(faults)} images"
        super().__init__(f"{what} of the dataset cannot be used:{shown}{more}\n{remedy}")

    def __reduce__(self) -> tuple[type["ImageError"], tuple[list[str], str]]:
        # By default an error is made again from its message; this one goes to all ranks, whole.
        return type(self), (self.faults, self.remedy)


def describe_fault(index: Index, sample: int, reason: str) -> str:
    """Name a sample's file and place in it, and what is wrong with it."""
    offset, size = int(index.offsets[sample]), int(index.sizes[sample])
    return f"{index.path(sample)} at offset {offset} ({size} bytes): {reason}"


def first_reason(message: str) -> str:
    """Say in a few words what DALI's long error message says of one image."""
    if "Failed to decode" in message:
        return "cannot be decoded: cut short or damaged"
    status = re.search(r"nvImageCodec failure: '#(\d+)'", message)
    if status and status[1] == UNSUPPORTED:
        return "cannot be decoded: of no known image format, or of an unsupported kind"
    if status:
        return f"cannot be decoded: damaged (nvImageCodec status {status[1]})"
    lines = [line.strip() for line in message.partition("encountered:")[2].splitlines()]
    return f"cannot be decoded: {next(filter(None, lines), 'no reason given')}"
