"""Images whose colours differ between training, which uses DALI's decoder, and other programs.

Only headers are read here.
"""

import re
import warnings
from io import BytesIO

from PIL import Image

from data.formats.image_header import jpeg_channels, jpeg_segments

APP14 = 0xFFEE
ADOBE = b"Adobe"
FULL_RANGES = (255, 65535)
"""Greatest values of a PNM image that training scales to 255."""
UNSCALED_MODES = {"F": "floating-point numbers", "I": "32-bit integers", "LAB": "CIELAB colours"}
"""Pixels of TIFFs, by Pillow's mode, that are not levels from 0 to 255."""


def disputed_colours(content: bytes, kind: str) -> str:
    """Return why an image of this format has disputed colours; empty if it does not."""
    match kind:
        case "jpeg" if jpeg_channels(content) == 4 and not _has_adobe_marker(content):
            return "four channels without Adobe's marker: training reads them as inverted"
        case "ppm":
            greatest = _greatest_value(content)
            if greatest is not None and greatest not in FULL_RANGES:
                return f"its greatest value is {greatest}: training does not scale them to 255"
        case "tiff":
            meaning = UNSCALED_MODES.get(_tiff_mode(content))
            if meaning:
                return f"its pixels are {meaning}, which training misreads"
        case _:
            pass
    return ""


def _has_adobe_marker(content: bytes) -> bool:
    return any(
        marker == APP14 and content.startswith(ADOBE, at + 4)
        for marker, at in jpeg_segments(content)
    )


def _greatest_value(content: bytes) -> int | None:
    """Return the greatest possible value of a PGM or PPM image; None for other content."""
    words = re.sub(rb"#[^\r\n]*", b"", content[:4096]).split(maxsplit=4)
    if len(words) < 4 or words[0] not in (b"P2", b"P3", b"P5", b"P6") or not words[3].isdigit():
        return None
    return int(words[3])


def _tiff_mode(content: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata
        with Image.open(BytesIO(content), formats=["TIFF"]) as image:
            return image.mode
