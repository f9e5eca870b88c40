"""Writes tar archives in the USTAR format: the same files always give the same bytes.

No times, owners or machines are recorded, and nothing depends on the version of a library.
"""

import os
from typing import BinaryIO

from data.formats.tar import BLOCK

END = bytes(2 * BLOCK)
SIZE_LIMIT = 8**11
"""Files must have fewer bytes: a size has eleven octal digits."""


class TarWriter:
    """Appends plain files to a new archive."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, name: str, content: bytes) -> int:
        """Append a file; return the offset of its content in the archive."""
        self._stream.write(_header(name, len(content)))
        offset = self._stream.tell()
        self._stream.write(content)
        self._stream.write(bytes(-len(content) % BLOCK))
        return offset

    def finish(self) -> None:
        """Write the end of the archive; return once all of it is on disk."""
        self._stream.write(END)
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _header(name: str, size: int) -> bytes:
    """Return the header of a plain file that anyone may read, owned by user 0 and dated 1970."""
    assert size < SIZE_LIMIT, "a file that fits in memory is smaller"
    fields = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0" * 2,  # user, group
        b"%011o\0" % size,
        b"00000000000\0",  # time of modification
        b" " * 8,  # the checksum, while it is computed
        b"0".ljust(101, b"\0"),  # a plain file, not a link
        b"ustar\x0000".ljust(72, b"\0"),  # empty names of user and group
        b"0000000\0" * 2,  # device
        bytes(167),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
