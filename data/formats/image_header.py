"""Width and height of a stored image, from its header; nothing is decoded.

Almost every image is a JPEG or a PNG with an ordinary header, which takes microseconds to read.
All else, and whatever is odd about a header, is left to Pillow, whose answer is the right one.
"""

import struct
import warnings
from io import BytesIO
from zlib import crc32

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")
SIDE_LIMIT_PIXELS = 1_000_000

# Only headers are read here, so that an image of any size is safe.
Image.MAX_IMAGE_PIXELS = None

_JPEG = b"\xff\xd8\xff"
_SEGMENT = struct.Struct(">HH").unpack_from
"""A segment's marker, and its length in bytes without the marker."""
_FRAME = struct.Struct(">BHHB").unpack_from
"""A frame's bits, height, width and components."""
_FRAMES = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
_PASSED = frozenset({0xFFC4, 0xFFCC, 0xFFDB, 0xFFDC, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0)})
"""Tables, restart intervals, comments, and what applications add: a whole thumbnail, say."""
_SCAN = 0xFFDA
_BARE = frozenset(range(0xFFD0, 0xFFDA))
"""Markers without a segment: restart, start and end of an image."""
_FILL = 0xFFFF

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s").unpack_from
"""A chunk's length in bytes without these 8 and its checksum, and its name."""
_PNG_HEADER = struct.Struct(">II5xI").unpack_from
"""Width, height and the chunk's checksum."""


class _OddError(Exception):
    """A header that is not worth code of ours."""


def image_size(content: memoryview | bytes) -> tuple[int, int]:
    """Return width and height in pixels of the image that fills `content`.

    They are of the pixels as stored: an EXIF orientation does not swap them. Raise `ValueError`,
    which says why, if it is no image of `FORMATS` or its header is damaged.
    """
    width, height = _stored_size(content)
    if max(width, height) > SIDE_LIMIT_PIXELS:
        raise ValueError(f"its header claims {width} x {height} pixels, more than can be")
    return width, height


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
    while True:  # on to the first scan: of several frames Pillow takes the last one's size
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
                return image.size
    except UnidentifiedImageError as error:
        raise ValueError(f"no image (of {', '.join(FORMATS)})") from error
    except Exception as error:  # a damaged header may break the parser in any way
        raise ValueError(f"damaged image header ({error})") from error
