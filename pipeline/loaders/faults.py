"""Images that cannot be read or decoded, said so that a person can find them."""

import re

from pipeline.dataset.index import Index

MOST_LISTED = 10


class ImageError(ValueError):
    """Some images cannot be used; the message names file, offset, size and reason of each."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        shown = "".join(f"\n  {fault}" for fault in faults[:MOST_LISTED])
        more = f"\n  ... and {len(faults) - MOST_LISTED} more" if len(faults) > MOST_LISTED else ""
        what = "an image" if len(faults) == 1 else f"{len(faults)} images"
        super().__init__(
            f"{what} of the dataset cannot be used:{shown}{more}\n"
            "Repair and prepare the dataset again, or set data.on_corrupt=skip: another image then"
            " stands in for each, and the replacements are counted."
        )


def describe_fault(index: Index, sample: int, reason: str) -> str:
    """Name a sample's file and place in it, and what is wrong with it."""
    offset, size = int(index.offsets[sample]), int(index.sizes[sample])
    return f"{index.path(sample)} at offset {offset} ({size} bytes): {reason}"


def first_reason(message: str) -> str:
    """Pick the telling line out of DALI's long error message."""
    for line in message.splitlines():
        found = re.search(
            r"(Failed to decode|nvImageCodec failure|[Uu]nsupported|[Ii]nvalid).*", line
        )
        if found:
            return f"cannot be decoded ({found[0].strip().rstrip('.')})"
    return "cannot be decoded"
