"""A sheet of images with captions; each image is pasted pixel for pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (226, 226, 226)
INK, FAINT_INK = (24, 24, 24), (96, 96, 96)
MARGIN, SECTION_GAP, STRIP_GAP, CELL_GAP = 24, 20, 28, 6
TITLE_TEXT, TEXT = 20, 14
LEAST_SIDE = 96
"""Smaller cells are enlarged by a whole factor, pixel by pixel."""
SHEET_WIDTH = 2400
"""The approximate width of a sheet, which always fits at least one strip."""


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of related images, with a caption."""

    caption: str
    cells: Sequence[Image.Image]


@dataclass(frozen=True, slots=True)
class SheetSection:
    """Strips of the same kind; `heads` are the headings of the cells in each strip."""

    title: str
    heads: Sequence[str]
    strips: Sequence[Strip]


def enlargement(side: int) -> int:
    """Return the whole factor that enlarges images of `side` pixels to a visible size."""
    return -(-LEAST_SIDE // side)


def draw_sheet(title: str, sections: Sequence[SheetSection]) -> Image.Image:
    """Draw the sections below each other; cells are squares as large as the largest image."""
    side = max(max(cell.size) for s in sections for strip in s.strips for cell in strip.cells)
    grid = _Grid(side)
    width = max(grid.section_width(section) for section in sections)
    height = grid.header + sum(grid.section_height(section) for section in sections) + MARGIN
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    pen = _Pen(sheet)
    pen.write((MARGIN, MARGIN), title, width - 2 * MARGIN, size=TITLE_TEXT)
    top = grid.header
    for section in sections:
        grid.draw(pen, section, top)
        top += grid.section_height(section)
    return sheet


class _Pen:
    def __init__(self, sheet: Image.Image) -> None:
        self.sheet = sheet
        self._draw = ImageDraw.Draw(sheet)

    def write(
        self,
        at: tuple[int, int],
        text: str,
        room: int,
        *,
        size: int = TEXT,
        ink: tuple[int, int, int] = INK,
    ) -> None:
        """Write one line, shortened to at most `room` pixels."""
        font = ImageFont.load_default(size)
        shown = text
        while text and self._draw.textlength(shown, font) > room:
            text = text[:-1]
            shown = f"{text.rstrip()} ..."
        self._draw.text(at, shown, ink, font)


@dataclass(frozen=True, slots=True)
class _Grid:
    """The layout; all numbers are pixels."""

    side: int

    @property
    def header(self) -> int:
        return MARGIN + TITLE_TEXT

    @property
    def section_header(self) -> int:
        return SECTION_GAP + 5 * TEXT

    @property
    def line_height(self) -> int:
        """A caption, the cells and the gap below."""
        return TEXT + 8 + self.side + STRIP_GAP // 2

    def strip_width(self, section: SheetSection) -> int:
        cells = len(section.heads)
        return cells * self.side + (cells - 1) * CELL_GAP

    def across(self, section: SheetSection) -> int:
        """The number of strips side by side."""
        room = SHEET_WIDTH - 2 * MARGIN + STRIP_GAP
        fit = max(1, room // (self.strip_width(section) + STRIP_GAP))
        return min(fit, len(section.strips))

    def section_width(self, section: SheetSection) -> int:
        strips = self.across(section)
        return 2 * MARGIN + strips * self.strip_width(section) + (strips - 1) * STRIP_GAP

    def section_height(self, section: SheetSection) -> int:
        lines = -(-len(section.strips) // self.across(section))
        return self.section_header + lines * self.line_height

    def draw(self, pen: _Pen, section: SheetSection, top: int) -> None:
        across = self.across(section)
        heads_top = top + SECTION_GAP + 2 * TEXT + 8
        room = self.section_width(section) - 2 * MARGIN
        pen.write((MARGIN, top + SECTION_GAP), section.title, room, size=TEXT + 2)
        for column in range(across):
            for cell, head in enumerate(section.heads):
                at = self._left(section, column, cell), heads_top
                pen.write(at, head, self.side, ink=FAINT_INK)
        for number, strip in enumerate(section.strips):
            line, column = divmod(number, across)
            at = self._left(section, column, 0), top + self.section_header + line * self.line_height
            self._draw_strip(pen, strip, at)

    def _draw_strip(self, pen: _Pen, strip: Strip, at: tuple[int, int]) -> None:
        left, top = at
        cells = len(strip.cells)
        pen.write(at, strip.caption, cells * (self.side + CELL_GAP) - CELL_GAP)
        for cell, image in enumerate(strip.cells):
            x = left + cell * (self.side + CELL_GAP) + (self.side - image.width) // 2
            pen.sheet.paste(image, (x, top + TEXT + 8 + (self.side - image.height) // 2))

    def _left(self, section: SheetSection, column: int, cell: int) -> int:
        before = column * (self.strip_width(section) + STRIP_GAP)
        return MARGIN + before + cell * (self.side + CELL_GAP)
