"""Images of many formats, sound and damaged, by what is odd about them."""

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

ORIENTATION = 0x0112
SIZE = (37, 22)


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """Two ramps of colour, which show where a pixel came from."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    levels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256]
    return Image.fromarray(np.stack(levels, 2).astype(np.uint8))


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


TURNABLE = {
    "JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"lossless": True}),
    "TIFF": ("TIFF", {}),
    "big-endian TIFF": ("TIFF", {"prefix": b"MM"}),
    "BigTIFF": ("TIFF", {"big_tiff": True}),
    "LZW TIFF": ("TIFF", {"compression": "tiff_lzw"}),
}
"""Formats that can have an orientation: the name that Pillow gives them, and options."""


def turned(name: str, orientation: int, size: tuple[int, int] = SIZE) -> bytes:
    """A picture of `size`, as stored, with an orientation tag."""
    kind, options = TURNABLE[name]
    options = dict(options)
    if kind == "TIFF":
        tags = ImageFileDirectory_v2(prefix=options.pop("prefix", b"II"))
        tags[ORIENTATION] = orientation
        return stored(picture(size), kind, tiffinfo=tags, **options)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return stored(picture(size), kind, exif=exif, **options)


def without_adobe(content: bytes) -> bytes:
    """A JPEG without its Adobe marker."""
    at = content.index(b"\xff\xee")
    return content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4]) :]


def pnm(magic: str, greatest: int, channels: int = 1, size: tuple[int, int] = SIZE) -> bytes:
    """A binary PGM or PPM whose header has `greatest` as its greatest value."""
    count = size[0] * size[1] * channels
    kind = ">u2" if greatest > 255 else "u1"
    levels = (np.arange(count) % (greatest + 1)).astype(kind)
    return f"{magic}\n# made\n{size[0]} {size[1]}\n{greatest}\n".encode() + levels.tobytes()


def levels(kind: type[np.generic]) -> Image.Image:
    """A grey picture with many levels."""
    width, height = SIZE
    return Image.fromarray((np.arange(width * height) * 80).reshape(height, width).astype(kind))


def png_without_pixels(content: bytes) -> bytes:
    """A PNG of which only the header and the end are left."""
    return content[:33] + bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4) + content[-12:]


_RGB, _JPEG = picture(), stored(picture((160, 120)), "JPEG", quality=90)
_PROGRESSIVE = stored(picture((160, 120)), "JPEG", progressive=True)

USABLE = {
    "baseline": _JPEG,
    "progressive": _PROGRESSIVE,
    "grey": stored(_RGB.convert("L"), "JPEG"),
    "CMYK": stored(_RGB.convert("CMYK"), "JPEG"),
    "CMYK without Adobe's marker": without_adobe(stored(_RGB.convert("CMYK"), "JPEG")),
    "restart markers": stored(_RGB, "JPEG", restart_marker_blocks=1),
    "bytes after the end": _JPEG + b"more",
    "PNG": stored(_RGB, "PNG"),
    "PNG of 16 bits": stored(levels(np.uint16), "PNG"),
    "PNG with palette": stored(_RGB.quantize(16), "PNG"),
    "PNG with palette and alpha": stored(_RGB.quantize(16), "PNG", transparency=3),
    "PNG with alpha": stored(_RGB.convert("RGBA"), "PNG"),
    "PNG of bits": stored(_RGB.convert("1"), "PNG"),
    "animated PNG": stored(_RGB, "PNG", save_all=True, append_images=[_RGB.rotate(90)]),
    "WebP": stored(_RGB, "WEBP"),
    "animated WebP": stored(_RGB, "WEBP", save_all=True, append_images=[_RGB.rotate(180)]),
    "BMP with palette": stored(_RGB.quantize(16), "BMP"),
    "TIFF of many pages": stored(_RGB, "TIFF", save_all=True, append_images=[picture((9, 8))]),
    "TIFF of 16 bits": stored(levels(np.uint16), "TIFF"),
    "TIFF of fractions": stored(levels(np.float32), "TIFF"),
    "CMYK TIFF": stored(_RGB.convert("CMYK"), "TIFF"),
    "PGM": pnm("P5", 255),
    "PGM of few levels": pnm("P5", 15),
    "PGM of 10 bits": pnm("P5", 1023),
    "PGM of 16 bits": pnm("P5", 65535),
    "PPM of few levels": pnm("P6", 100, 3),
    "one pixel": stored(picture((1, 1)), "JPEG"),
    "one row": stored(picture((8000, 1)), "JPEG"),
    "one column": stored(picture((1, 8000)), "PNG"),
    **{f"{name} {turn}": turned(name, turn) for name in TURNABLE for turn in (1, 3, 6, 8)},
}
"""Images that training decodes."""

UNUSABLE = {
    "no byte": b"",
    "text": b"Here was an image. " * 9,
    "half a JPEG": _JPEG[: len(_JPEG) // 2],
    "JPEG without its last byte": _JPEG[:-1],
    "JPEG without its last bytes": _JPEG[:-40],
    "half a progressive JPEG": _PROGRESSIVE[: len(_PROGRESSIVE) // 2],
    "header of a JPEG": _JPEG[:300],
    "half a PNG": stored(picture((160, 120)), "PNG")[:200],
    "PNG without pixels": png_without_pixels(stored(_RGB, "PNG")),
    "half a TIFF": stored(picture((160, 120)), "TIFF", compression="tiff_lzw")[:-500],
    "half a WebP": stored(picture((160, 120)), "WEBP")[:-60],
    "half a PPM": pnm("P6", 255, 3)[:-300],
    "GIF": stored(_RGB, "GIF"),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(500),
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(500),
    "PFM": b"Pf\n4 4\n-1.0\n" + bytes(64),
    "TIFF of bits": stored(_RGB.convert("1"), "TIFF"),
}
"""Images that training cannot decode."""
