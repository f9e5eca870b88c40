"""Where the values of a Parquet column lie in its file, found by comparing all of their bytes.

A value that is neither compressed nor encoded follows its length, 4 bytes in little-endian order.
Values lie one after the other, in the order of the rows, with page headers in between; a dictionary
has each value once. So the next value nearly always begins where the last one ended.
"""

import os

from pipeline.dataset.samples import digest

_LENGTH_BYTES = 4
_HEAD_BYTES = 64
_WINDOW = 1 << 16
_NEAR = 1 << 20
"""Bytes within which the next value should begin: page headers are much smaller."""


class ValueFinder:
    """Finds the values of one column chunk; ask for them in the order of the rows."""

    def __init__(self, file: int, *, start: int, size: int) -> None:
        """Search `size` bytes from byte `start` of the open file descriptor `file`."""
        self._file = file
        self._start = self._at = start
        self._end = start + size
        self._places: dict[bytes, int] = {}

    def find(self, value: bytes) -> int | None:
        """Return the offset of `value` in the file; None if it is missing."""
        stored = len(value).to_bytes(_LENGTH_BYTES, "little") + value
        content = digest(value)
        if self._holds(self._at, stored):
            return self._found(self._at, stored, content)
        known = self._places.get(content)
        if known is not None and self._holds(known, stored):
            return known + _LENGTH_BYTES
        at = self._at
        # A dictionary may order its values differently from the rows; it precedes all other values.
        for begin, end in ((at, at + _NEAR), (self._start, at), (at, self._end)):
            place = self._search(stored, begin, min(end, self._end))
            if place is not None:
                return self._found(place, stored, content)
        return None

    def _found(self, place: int, stored: bytes, content: bytes) -> int:
        self._places[content] = place
        self._at = max(self._at, place + len(stored))
        return place + _LENGTH_BYTES

    def _holds(self, place: int, stored: bytes) -> bool:
        if place + len(stored) > self._end:
            return False
        return os.pread(self._file, len(stored), place) == stored

    def _search(self, stored: bytes, begin: int, end: int) -> int | None:
        head = stored[:_HEAD_BYTES]
        while end - begin >= len(head):
            window = os.pread(self._file, min(_WINDOW, end - begin), begin)
            hit = window.find(head)
            if hit >= 0 and self._holds(begin + hit, stored):
                return begin + hit
            passed = hit + 1 if hit >= 0 else len(window) - len(head) + 1
            if passed <= 0:
                return None  # the file is shorter than its footer says
            begin += passed
        return None
