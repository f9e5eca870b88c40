"""Format, width and height of a stored image, from its first bytes; nothing is decoded.

Almost every image is a JPEG or a PNG with an ordinary header, which takes microseconds to read.
Everything else is left to Pillow, whose answer decides.
"""

import struct
import warnings
from collections.abc import Iterator
from io import BytesIO
from zlib import crc32

from PIL import Image, UnidentifiedImageError

from data.formats.orientation import stored_size

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")
SIDE_LIMIT_PIXELS = 1_000_000
UNKNOWN = "unknown"
JPEG = "jpeg"

# Only headers are read here, so images of any size are safe.
Image.MAX_IMAGE_PIXELS = None

_JPEG = b"\xff\xd8\xff"
_SEGMENT = struct.Struct(">HH").unpack_from
"""A segment's marker, and its length in bytes without the marker."""
_SEGMENT_HEAD = 4
_FRAME = struct.Struct(">BHHB").unpack_from
"""A frame's bits, height, width and components."""
_FRAMES = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
_PASSED = frozenset({0xFFC4, 0xFFCC, 0xFFDB, 0xFFDC, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0)})
"""Tables, restart intervals, comments and application data, which may hold a whole thumbnail."""
_FIRST, _SCAN, _FILL = 0xFFC0, 0xFFDA, 0xFFFF
_BARE = frozenset(range(0xFFD0, 0xFFDA))
"""Markers without a segment: restart, start and end of an image."""
_COMPONENTS_AT = 9
"""The byte of a frame, counted from its marker, that holds the number of channels."""

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s").unpack_from
"""A chunk's length in bytes without these 8 and its checksum, and its name."""
_PNG_HEADER = struct.Struct(">II5xI").unpack_from
"""Width, height and the chunk's checksum."""

_BEGINNINGS = {
    _JPEG: JPEG,
    _PNG: "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # with offsets of 64 bits
    b"MM\0+": "tiff",
    b"\0\0\0\x0cjP  ": "jpeg2000",
    **{b"P%d" % number: "ppm" for number in range(1, 7)},
}


class _OddError(Exception):
    """A header that only Pillow reads."""


def image_size(content: memoryview | bytes) -> tuple[int, int]:
    """Return width and height in pixels of the image that fills `content`.

    They are of the pixels as stored: an orientation tag does not swap them. Raises `ValueError`
    with the reason if this is not an image in one of `FORMATS` or its header is damaged.
    """
    width, height = _stored_size(content)
    if max(width, height) > SIDE_LIMIT_PIXELS:
        raise ValueError(f"its header claims {width} x {height} pixels, which is impossible")
    return width, height


def image_kind(content: bytes) -> str:
    """Return the format of an image: jpeg, png, gif, bmp, webp, tiff, ppm ...; or `UNKNOWN`."""
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        return "avif" if content[8:12] in (b"avif", b"avis") else "heif"
    return UNKNOWN


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment before the first scan of a JPEG, and where it begins."""
    at = 2
    while at + _SEGMENT_HEAD <= len(content):
        marker, length = _SEGMENT(content, at)
        if marker == _SCAN or marker < _FIRST:
            return
        if marker == _FILL:
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            yield marker, at
            at += 2 + length


def jpeg_channels(content: bytes) -> int | None:
    """Return the number of channels in the header of a JPEG; None if the header lacks it."""
    for marker, at in jpeg_segments(content):
        if marker in _FRAMES and at + _COMPONENTS_AT < len(content):
            return content[at + _COMPONENTS_AT]
    return None


def _stored_size(content: memoryview | bytes) -> tuple[int, int]:
    try:
        if content[:3] == _JPEG:
            return _jpeg_size(content)
        if content[:8] == _PNG:
            return _png_size(content)
    except (_OddError, struct.error):  # or it ends too early
        pass
    return _size_by_pillow(content)


def _jpeg_size(content: memoryview | bytes) -> tuple[int, int]:
    size = None
    at = 2
    while True:  # up to the first scan: of several frames Pillow uses the last
        marker, length = _SEGMENT(content, at)
        if marker in _PASSED and length >= 2:
            at += 2 + length
        elif marker in _FRAMES:
            size = _frame_size(content, at + 4, length)
            at += 2 + length
        elif marker == _SCAN and size and at + 2 + length <= len(content):
            return size
        elif marker == _FILL:
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            raise _OddError


def _frame_size(content: memoryview | bytes, at: int, length: int) -> tuple[int, int]:
    bits, height, width, components = _FRAME(content, at)
    regular = bits == 8 and components in (1, 3, 4) and length == 8 + 3 * components
    if not (regular and width and height):
        raise _OddError
    return width, height


def _png_size(content: memoryview | bytes) -> tuple[int, int]:
    length, name = _CHUNK(content, 8)
    width, height, checksum = _PNG_HEADER(content, 16)
    regular = (length, name) == (13, b"IHDR") and crc32(content[12:29]) == checksum
    if not (regular and width and height):
        raise _OddError
    at = 33
    while name != b"IDAT":
        length, name = _CHUNK(content, at)
        if name in (b"IHDR", b"IEND", b"fdAT"):
            raise _OddError
        at += 12 + length
    return width, height


def _size_by_pillow(content: memoryview | bytes) -> tuple[int, int]:
    if not len(content):
        raise ValueError("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                return stored_size(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error
    except Exception as error:  # a damaged header may break the parser in any way
        raise ValueError(f"damaged image header ({error})") from error
