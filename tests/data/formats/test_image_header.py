"""The size in the header of an image is the size that Pillow reads."""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.formats.image_header import FORMATS, SIDE_LIMIT_PIXELS, image_size
from tests.support.preparing import picture

SIZE = (37, 22)
"""Width and height of all pictures here, in pixels."""


def stored(kind: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    content = io.BytesIO()
    picture(7, size, mode).save(content, kind, **options)
    return content.getvalue()


def turned() -> bytes:
    """EXIF data that turns the image by 90 degrees, with a thumbnail of another size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes() + stored("JPEG", size=(160, 120))


FAST = {
    "baseline": stored("JPEG"),
    "progressive": stored("JPEG", progressive=True),
    "grey": stored("JPEG", "L"),
    "CMYK": stored("JPEG", "CMYK"),
    "optimised": stored("JPEG", optimize=True, quality=100, subsampling=0),
    "EXIF with a thumbnail": stored("JPEG", exif=turned()),
    "colour profile of many segments": stored("JPEG", icc_profile=bytes(200_000)),
    "comment": stored("JPEG", comment=b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03"),
    "restart markers": stored("JPEG", restart_marker_blocks=1),
    "PNG": stored("PNG"),
    "PNG, grey": stored("PNG", "L"),
    "PNG, black and white": stored("PNG", "1"),
    "PNG, palette": stored("PNG", "P"),
    "PNG, transparent": stored("PNG", "RGBA"),
    "PNG, EXIF": stored("PNG", exif=turned()),
}
SLOW = {
    "WebP": stored("WEBP"),
    "BMP": stored("BMP"),
    "TIFF": stored("TIFF"),
    "PPM": stored("PPM"),
    "PGM": stored("PPM", "L"),
}
ALL = FAST | SLOW


def pillow_size(content: bytes) -> tuple[int, int] | None:
    """The size that Pillow reads; None if it refuses."""
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.size if max(image.size) <= SIDE_LIMIT_PIXELS else None
    return None


def found_size(content: bytes) -> tuple[int, int] | None:
    """The size that we read; None if we refuse."""
    with suppress(ValueError):
        width, height = image_size(content)
        assert min(width, height) > 0
        return width, height
    return None


def assert_agrees(content: bytes) -> None:
    """We read the size that Pillow reads, or one where Pillow refuses; other errors are bugs."""
    expected, found = pillow_size(content), found_size(content)
    assert found == expected or (found and not expected)


def replaced(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize("kind", ALL)
def test_the_size_is_that_of_the_pixels_as_stored(kind: str) -> None:
    content = ALL[kind]
    assert pillow_size(content) == SIZE
    assert image_size(content) == image_size(memoryview(bytearray(content))) == SIZE


@pytest.mark.parametrize("kind", FAST)
def test_ordinary_headers_do_not_need_pillow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image, "open")
    assert image_size(FAST[kind]) == SIZE


@pytest.mark.parametrize("kind", ALL)
def test_bytes_after_the_header_do_not_matter(kind: str) -> None:
    assert image_size(ALL[kind] + b"\xff\xd8\xff\xc0 rest") == SIZE


# ------------------------------------------------------------------------------- odd headers

FRAME = FAST["baseline"].index(b"\xff\xc0")
SCAN = FAST["baseline"].index(b"\xff\xda")


def with_segments(*segments: bytes) -> bytes:
    """A JPEG with more segments before its frame."""
    content = FAST["baseline"]
    return content[:FRAME] + b"".join(segments) + content[FRAME:]


def with_frame(*parts: bytes) -> bytes:
    """A JPEG with another frame."""
    content, frame = FAST["baseline"], b"".join(parts)
    after = FRAME + 2 + int.from_bytes(content[FRAME + 2 : FRAME + 4])
    return content[:FRAME] + b"\xff\xc0" + (2 + len(frame)).to_bytes(2) + frame + content[after:]


ODD = {
    "fill bytes": with_segments(b"\xff" * 9),
    "markers without segments": with_segments(b"\xff\xd0\xff\xd7\xff\xd8\xff\xd9"),
    "junk between segments": with_segments(b"junk"),
    "escaped byte between segments": with_segments(b"\xff\x00"),
    "reserved marker": with_segments(b"\xff\x01"),
    "JPEG extension": with_segments(b"\xff\xc8\x00\x04ab"),
    "segment shorter than its length": with_segments(b"\xff\xe1\x00\x00", b"\xff\xe1\x00\x01"),
    "another frame before": with_segments(b"\xff\xc0\x00\x0b\x08\x00\x05\x00\x06\x01\x01\x11\x00"),
    "hierarchical": with_segments(b"\xff\xde\x00\x0b\x08\x00\x05\x00\x06\x01\x01\x11\x00"),
    "12 bits": replaced(FAST["baseline"], FRAME + 4, b"\x0c"),
    "components left out": replaced(FAST["baseline"], FRAME + 3, b"\x0e"),
    "two components": with_frame(b"\x08\x00\x05\x00\x06\x02", b"\x01\x11\x00\x02\x11\x00"),
    "more than its components": with_frame(b"\x08\x00\x05\x00\x06\x01", b"\x01\x11\x00\x02"),
    "height from the scan": replaced(FAST["baseline"], FRAME + 5, b"\0\0"),
    "no width": replaced(FAST["baseline"], FRAME + 7, b"\0\0"),
    "no scan": FAST["baseline"][:SCAN],
    "scan before the frame": FAST["baseline"][:FRAME] + FAST["baseline"][SCAN:],
    **{
        f"frame {number}": replaced(FAST["baseline"], FRAME + 1, bytes([number]))
        for number in range(0xC0, 0xD0)
    },
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_headers_give_the_size_of_pillow(kind: str) -> None:
    assert found_size(ODD[kind]) == pillow_size(ODD[kind])


@pytest.mark.parametrize("kind", ["fill bytes", "markers without segments", "frame 193"])
def test_unusual_but_valid_headers_do_not_need_pillow(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Image, "open")
    assert image_size(ODD[kind]) == SIZE


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "chunks",
    [
        (png_header(3, 4), chunk(b"IDAT", b"")),
        (png_header(3, 4), png_header(5, 6), chunk(b"IDAT", b"")),
        (png_header(3, 4), chunk(b"tEXt", b"a\0b"), png_header(5, 6), chunk(b"IDAT", b"")),
        (png_header(3, 4), chunk(b"IEND", b"")),
        (png_header(3, 4),),
        (png_header(0, 4), chunk(b"IDAT", b"")),
        (png_header(3, 0), chunk(b"IDAT", b"")),
        (png_header(3, 4)[:-1] + b"?", chunk(b"IDAT", b"")),
        (chunk(b"tEXt", b"a\0b"), png_header(5, 6), chunk(b"IDAT", b"")),
        (chunk(b"IHDR", b"short"), chunk(b"IDAT", b"")),
        (),
    ],
)
def test_odd_pngs_give_the_size_of_pillow(chunks: tuple[bytes, ...]) -> None:
    assert found_size(png(*chunks)) == pillow_size(png(*chunks))


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "not a JPEG, PNG, PPM, BMP, WEBP or TIFF image"),
        (b"\xff\xd8\xff", "not a JPEG, PNG, "),
        (b"\x89PNG\r\n\x1a\n", "not a JPEG, PNG, "),
        (ODD["no width"], "not a JPEG, PNG, "),
        (ODD["height from the scan"], "not a JPEG, PNG, "),
        (png(png_header(0, 4), chunk(b"IDAT", b"")), "not a JPEG, PNG, "),
        (FAST["baseline"][: FRAME + 6], "damaged image header (Truncated File Read)"),
        (b"P6\nwidth", "damaged image header ("),
        (png(png_header(1 << 31, 4), chunk(b"IDAT", b"")), "its header claims 2147483648 x 4 pix"),
    ],
)
def test_a_refusal_has_its_reason(content: bytes, reason: str) -> None:
    for given_as in (content, memoryview(content)):
        with pytest.raises(ValueError) as caught:
            image_size(given_as)
        assert str(caught.value).startswith(reason)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_truncated_headers_are_read_as_pillow_reads_them(kind: str) -> None:
    content = ALL[kind]
    for end in range(min(len(content), 1000)):
        assert found_size(content[:end]) == pillow_size(content[:end])


Edit = tuple[float, int, bytes]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=4
)


def edited(content: bytes, changes: list[Edit]) -> bytes:
    """Replace some bytes at each place in the header."""
    for place, gone, new in changes:
        at = int(place * min(len(content), 700))
        content = content[:at] + new + content[at + gone :]
    return content


@pytest.mark.slow
@given(st.sampled_from(sorted(ALL)), edits)
@settings(max_examples=600, deadline=None)
def test_edited_headers_are_read_as_pillow_reads_them(kind: str, changes: list[Edit]) -> None:
    assert_agrees(edited(ALL[kind], changes))


SEGMENTS = [
    bytes([0xFF, marker]) + (2 + len(rest)).to_bytes(2) + rest
    for marker in range(0xC0, 0x100)
    for rest in (b"", b"\x08\x00\x05\x00\x06\x01\x01\x11\x00", b"\xff\xd8\xff\xc0")
]


@given(st.lists(st.sampled_from([*SEGMENTS, b"\xff", b"\0", b"\xff\xd0", b"\xff\0"]), max_size=6))
@settings(max_examples=400, deadline=None)
def test_segments_in_any_order_are_read_as_pillow_reads_them(segments: list[bytes]) -> None:
    assert_agrees(with_segments(*segments))
    assert_agrees(b"\xff\xd8" + b"".join(segments))


@given(
    st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0"])
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_pillow_reads_them(content: bytes, signature: bytes) -> None:
    assert_agrees(signature + content)
