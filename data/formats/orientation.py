"""Images as their files store them: training ignores every orientation tag.

So does Pillow, except for TIFFs: it swaps their width and height, and turns the pixels it loads.
"""

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

_Turn = Image.Transpose
TURNED_BACK = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_90,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_270,
}
"""The inverse of each orientation."""


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image, in pixels as stored."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def stored_pixels(image: Image.Image) -> Image.Image:
    """Return an opened image with its pixels as stored."""
    if not isinstance(image, TiffImageFile):
        return image
    turn = TURNED_BACK.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)
