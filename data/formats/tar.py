"""Tar archives read in place: the plain files in them, and the byte range of each.

Nothing is unpacked or trusted. An archive may lie inside another one.
"""

import os
import re
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zlib import adler32

BLOCK = 512
READ_AHEAD = 1 << 20
CONTENT_LIMIT = 1 << 30
"""Bytes of the largest file that is read: it has to fit in memory."""
EXTENSION_LIMIT = 1 << 20
"""Bytes of the largest long name or PAX header; paths on Linux have at most 4 KiB."""
SIZE_LIMIT = 1 << 50

_FIELDS = struct.Struct("100s24x12s12x8sc100x6s82x155s12x").unpack
"""Name, size, checksum, kind, magic and prefix of a header."""
_RECORD = re.compile(rb"([1-9][0-9]{0,7}) ([^=]+)=")

_LEAVE_OUT = "leave it out of the archive"
_FETCH = "fetch the archive again"
_DISTRUST = "fetch the archive from a source that you trust"
_FILES = frozenset({b"0", b"\0"})
_EXTENSIONS = frozenset({b"L", b"K", b"x", b"X"})
_WITH_CONTENT = _FILES | _EXTENSIONS | {b"g"}
_REFUSED = {
    b"1": "is a hard link; pack the archive again with tar --hard-dereference",
    b"2": "is a symbolic link; pack the archive again with tar -h",
    **dict.fromkeys((b"3", b"4"), f"is a device; {_LEAVE_OUT}"),
    b"6": f"is a named pipe; {_LEAVE_OUT}",
    b"S": "is a sparse file; pack it again without --sparse",
}
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\3\4": ("zip", "unzip"),
}


class TarMember(NamedTuple):
    """A plain file in an archive: `size` bytes from byte `offset` of the archive file."""

    name: str
    offset: int
    size: int


def walk(
    path: Path, *, start: int = 0, end: int | None = None
) -> Iterator[tuple[TarMember, memoryview]]:
    """Read a tar once, from front to back, and yield each plain file in it with its content.

    The tar fills bytes `start` to `end` of `path`: the whole file, or an inner tar. A content is
    valid until the next step. Folders are skipped, and so is everything after the end of the
    archive. Raises `ValueError` if this is not an uncompressed tar, if it is damaged, or if a
    member is not a plain file, is larger than 1 GiB or has a name that leads out of the archive.
    """
    with _open_span(path, start, end, read_ahead=READ_AHEAD) as span:
        for member in _members(span):
            if member.size > CONTENT_LIMIT:
                reason = f"has {member.size} bytes, too many for memory; {_LEAVE_OUT}"
                raise span.fault(member.offset - BLOCK, member.name.encode(), reason)
            yield member, span.read(member.offset, member.size)


def list_members(path: Path, *, start: int = 0, end: int | None = None) -> Iterator[TarMember]:
    """Yield the plain files in a tar as `walk` does, but read only their headers."""
    with _open_span(path, start, end, read_ahead=BLOCK) as span:
        yield from _members(span)


class _Span:
    """Bytes `start` to `end` of a file, read from front to back through one buffer."""

    def __init__(self, path: Path, file: int, start: int, end: int, *, read_ahead: int) -> None:
        self.place = str(path) if not start else f"{path} from byte {start}"
        self.start = start
        self.end = end
        self._path = path
        self._file = file
        self._read_ahead = read_ahead
        self._buffer = self._view = memoryview(b"")
        self._at = start
        self._held = 0

    def read(self, at: int, size: int) -> memoryview:
        """Return `size` bytes from byte `at` of the file, valid until the next call."""
        begin = at - self._at
        if begin + size > self._held:
            self._fill(at, size)
            begin = 0
        return self._view[begin : begin + size]

    def fault(self, at: int, member: bytes, reason: str) -> ValueError:
        """Return the error about the member whose header is at byte `at`."""
        name = member.decode(errors="surrogateescape")
        return ValueError(f"{self.place} cannot be indexed: {name!r} at byte {at} {reason}")

    def _fill(self, at: int, size: int) -> None:
        assert self._at <= at <= at + size <= self.end, "reads move forward, within the span"
        rest = self._view[at - self._at : self._held]
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(max(size, 2 * len(self._buffer), self._read_ahead)))
            self._view = self._buffer.toreadonly()
        self._buffer[: len(rest)] = rest
        self._at, self._held = at, len(rest)
        while self._held < size:
            self._held += self._read_on(at + self._held)

    def _read_on(self, at: int) -> int:
        free = self._buffer[self._held : self.end - self._at]
        try:
            count = os.preadv(self._file, [free], at)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} at byte {at}", str(self._path)) from error
        if not count:
            raise ValueError(f"{self.place} shrank to {at} bytes while it was read; {_FETCH}")
        return count


@contextmanager
def _open_span(
    path: Path, start: int, end: int | None, *, read_ahead: int
) -> Generator[_Span, None, None]:
    if path.exists() and not path.is_file():  # opening a named pipe would wait forever
        raise ValueError(f"{path} is not a plain file; give the path of a tar archive")
    with path.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        end = size if end is None else end
        assert 0 <= start <= end, f"bytes {start} to {end} are not a span"
        if end > size:
            raise ValueError(f"{path} is truncated: it needs {end - size} more bytes; {_FETCH}")
        yield _Span(path, stream.fileno(), start, end, read_ahead=read_ahead)


def _members(span: _Span) -> Iterator[TarMember]:
    at, kind = span.start, b""
    own: dict[bytes, bytes] = {}  # from extensions of the next member
    shared: dict[bytes, bytes] = {}  # from extensions of all members that follow
    while header := _header(span, at):
        kind, name, size = header
        if kind in _FILES and (own or shared):
            name, size = _extended(name, size, shared | own)
        stop = _stop(span, at, name, size if kind in _WITH_CONTENT else 0)
        match kind:
            case b"0" | b"\0":
                own = {}
                yield TarMember(_checked(span, at, name), at + BLOCK, size)
            case b"5":
                own = {}
            case b"L":
                own.setdefault(b"path", _extension(span, at, name, size).rstrip(b"\0"))
            case b"K":  # the link itself follows, and is refused
                pass
            case b"x" | b"X":
                own |= _pax(span, at, name, size)
            case b"g":
                shared |= _pax(span, at, name, size)
            case _:
                reason = _REFUSED.get(kind, f"is of an unknown kind, {kind!r}; {_LEAVE_OUT}")
                raise span.fault(at, name, reason)
        at = stop
    if kind in _EXTENSIONS:
        raise ValueError(f"{span.place} is truncated: a member is missing at byte {at}; {_FETCH}")


def _header(span: _Span, at: int) -> tuple[bytes, bytes, int] | None:
    """Return kind, name and size of the member whose header is at byte `at`; None at the end."""
    if span.start < at == span.end:
        return None
    if at + BLOCK > span.end:
        raise _no_header(span, at)
    block = span.read(at, BLOCK)
    name, size, checksum, kind, magic, prefix = _FIELDS(block)
    if not _sums_up(block, checksum):
        if any(block):
            raise _no_header(span, at)
        return _check_end(span, at)
    name = name.partition(b"\0")[0]
    if prefix[0] and magic == b"ustar\0":  # GNU tar uses these bytes differently
        name = prefix.partition(b"\0")[0] + b"/" + name
    if kind == b"\0" and name.endswith(b"/"):
        kind = b"5"  # from before tar had a kind for folders
    return kind, name, _number(size)


def _check_end(span: _Span, at: int) -> None:
    """Refuse the empty block at byte `at` if content follows: members would be lost."""
    if at + 2 * BLOCK <= span.end and any(span.read(at + BLOCK, BLOCK)):
        raise ValueError(f"{span.place} is damaged: an empty block begins at byte {at}; {_FETCH}")


def _sums_up(block: memoryview, checksum: bytes) -> bool:
    # The lower half of an Adler-32 is 1 + the sum of so few bytes; `sum` is several times slower.
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    wanted = _number(checksum) - 8 * ord(" ")
    if total - sum(checksum) == wanted:
        return True
    return sum(struct.unpack("148b8x356b", block)) == wanted  # signed, as in some old tars


def _number(field: bytes) -> int:
    """Read octal digits or a base-256 number; -1 if it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _stop(span: _Span, at: int, name: bytes, size: int) -> int:
    """Return the byte after the content of a member, which fills whole blocks."""
    if not 0 <= size <= SIZE_LIMIT:
        raise span.fault(at, name, f"has an impossible size; {_FETCH}")
    stop = at + BLOCK + size + -size % BLOCK
    if stop > span.end:
        raise span.fault(at, name, f"is truncated: it needs {stop - span.end} more bytes; {_FETCH}")
    return stop


def _extension(span: _Span, at: int, name: bytes, size: int) -> bytes:
    if size > EXTENSION_LIMIT:
        raise span.fault(at, name, f"has a name or PAX header of {size} bytes; {_DISTRUST}")
    return bytes(span.read(at + BLOCK, size))


def _pax(span: _Span, at: int, name: bytes, size: int) -> dict[bytes, bytes]:
    """Return path and size from a PAX header."""
    block = _extension(span, at, name, size)
    records: dict[bytes, bytes] = {}
    begin = 0
    while begin < size:
        record = _RECORD.match(block, begin)
        stop = begin + int(record[1]) if record else 0
        if not record or not record.end() < stop <= size or block[stop - 1] != ord("\n"):
            raise span.fault(at, name, f"is a malformed PAX header; {_FETCH}")
        key = record[2]
        if key.startswith((b"GNU.sparse.", b"SCHILY.realsize")):
            raise span.fault(at, name, _REFUSED[b"S"])
        if key in (b"path", b"size"):
            records[key] = block[record.end() : stop - 1]
        begin = stop
    return records


def _extended(name: bytes, size: int, records: dict[bytes, bytes]) -> tuple[bytes, int]:
    digits = records.get(b"size", b"%d" % size)
    size = int(digits) if digits.isdigit() and len(digits) < 20 else -1
    return records.get(b"path", name), size


def _checked(span: _Span, at: int, name: bytes) -> str:
    """Return the name if it leads to a file below the folder of the archive; refuse any other."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        reason = "has a name that is not UTF-8; rename the file and pack it again"
        raise span.fault(at, name, reason) from None
    if reason := _mistrusted(text):
        raise span.fault(at, name, f"{reason}; {_DISTRUST}")
    return text


def _mistrusted(name: str) -> str:
    """Return what is wrong with a name; empty if nothing is."""
    steps = name.split("/")
    if not name:
        return "has no name"
    if len(name) > 4096:
        return "has a name of more than 4,096 characters"
    if not steps[0] or ".." in steps:
        return "leads out of the folder of the archive"
    if steps[-1] in ("", "."):
        return "has the name of a folder"
    return "has a NUL in its name" if "\0" in name else ""


def _no_header(span: _Span, at: int) -> ValueError:
    if at > span.start:
        cut = f"truncated: the header at byte {at} needs {at + BLOCK - span.end} more bytes"
        fault = cut if at + BLOCK > span.end else f"damaged: the header at byte {at} is invalid"
        return ValueError(f"{span.place} is {fault}; {_FETCH}")
    beginning = bytes(span.read(at, min(BLOCK, span.end - at)))
    for magic, (kind, tool) in _COMPRESSED.items():
        if beginning.startswith(magic):
            remedy = f"decompress it with {tool}: only uncompressed archives are indexed in place"
            return ValueError(f"{span.place} is compressed ({kind}); {remedy}")
    reason = f"it does not begin with a valid header; give another file, or {_FETCH}"
    return ValueError(f"{span.place} is not a tar archive: {reason}")
