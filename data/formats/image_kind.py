"""Which format the bytes of an image are in, whatever its file is called."""

import struct

UNKNOWN = "unknown"
JPEG = "jpeg"

_BEGINNINGS = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\0\0\0\x0cjP  ": "jpeg2000",
    **{b"P%d" % number: "ppm" for number in range(1, 7)},
}
_SEGMENT = struct.Struct(">HH").unpack_from
"""A segment's marker, and its length in bytes without the marker."""
_FRAMES = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
_BARE = frozenset(range(0xFFD0, 0xFFDA))
"""Markers without a segment."""
_SCAN, _FILL, _FIRST = 0xFFDA, 0xFFFF, 0xFFC0
_COMPONENTS_AT = 9
"""The byte of a frame, counted from its marker, that says how many channels it has."""


def image_kind(content: bytes) -> str:
    """Name the format of an image: jpeg, png, gif, bmp, webp, tiff, ppm ...; or `UNKNOWN`."""
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        return "avif" if content[8:12] in (b"avif", b"avis") else "heif"
    return UNKNOWN


def jpeg_channels(content: bytes) -> int | None:
    """Return how many channels a JPEG has, by its header; None if that does not say."""
    at = 2
    while at + _COMPONENTS_AT < len(content):
        marker, length = _SEGMENT(content, at)
        if marker in _FRAMES:
            return content[at + _COMPONENTS_AT]
        if marker == _SCAN or marker < _FIRST:
            return None
        if marker == _FILL:
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + length
    return None
