"""Struct arrays of MATLAB 5 files (.mat), read without trusting them.

scipy.io.loadmat reads them too, but a single wrong byte can end its process with a segmentation
fault. Here the few kinds of element that a table of numbers and texts needs are read, with every
size checked and nothing nested followed; damage always ends in `ValueError`.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

INFLATED_LIMIT_BYTES = 16 << 20
"""Bytes of the largest variable that is decompressed."""

_HEADER_BYTES = 128
_TAG = struct.Struct("<II")
_MATRIX, _COMPRESSED = 14, 15
_STRUCT_CLASS, _CHAR_CLASS = 2, 4
_NUMBER_CLASSES = range(6, 16)
_NUMBERS = {
    1: struct.Struct("<b"),
    2: struct.Struct("<B"),
    3: struct.Struct("<h"),
    4: struct.Struct("<H"),
    5: struct.Struct("<i"),
    6: struct.Struct("<I"),
    7: struct.Struct("<f"),
    9: struct.Struct("<d"),
    12: struct.Struct("<q"),
    13: struct.Struct("<Q"),
}
"""Kinds of element that hold numbers; MATLAB stores even a double in the smallest that fits."""
_ENCODINGS = {
    1: "ascii",
    2: "latin-1",
    4: "utf-16-le",
    16: "utf-8",
    17: "utf-16-le",
    18: "utf-32-le",
}
"""Kinds of element that hold the characters of a text."""


@dataclass(frozen=True, slots=True)
class StructArray:
    """The structs of one array, in order; `rows` holds a matrix, still encoded, for each field."""

    fields: tuple[str, ...]
    rows: tuple[tuple[memoryview, ...], ...]

    def column(self, field: str) -> list[memoryview]:
        """Return the field's matrices; raise `ValueError` if there is no such field."""
        if field not in self.fields:
            has = ", ".join(self.fields) or "none"
            raise ValueError(f"its structs have no field {field!r} (but {has})")
        place = self.fields.index(field)
        return [row[place] for row in self.rows]


@dataclass(frozen=True, slots=True)
class _Matrix:
    kind: int
    """MATLAB's class of the matrix: of structs, of characters, of doubles ..."""
    shape: tuple[int, ...]
    name: str
    parts: tuple[tuple[int, memoryview], ...]
    """The elements that follow the name."""


def read_struct_array(content: bytes, name: str) -> StructArray:
    """Read the struct array called `name` of a little-endian MATLAB 5 file.

    Raise `ValueError`, which says what is wrong but not of which file, if there is none.
    """
    if not content.startswith(b"MATLAB 5.0 MAT-file") or content[124:128] != b"\x00\x01IM":
        raise ValueError("it is no little-endian MATLAB 5 file")
    names: list[str] = []
    for payload in _variables(memoryview(content)[_HEADER_BYTES:]):
        matrix = _matrix(payload)
        if matrix.name == name:
            return _struct_array(matrix)
        names.append(matrix.name)
    raise ValueError(f"it has no variable {name!r} (but {', '.join(names) or 'none'})")


def read_text(payload: memoryview) -> str:
    """Decode a matrix that is one row of characters; raise `ValueError` if it is anything else."""
    matrix = _matrix(payload)
    if matrix.kind != _CHAR_CLASS or len(matrix.parts) != 1 or len(matrix.shape) != 2:
        raise ValueError("a matrix that should be a text is none")
    kind, data = matrix.parts[0]
    if kind not in _ENCODINGS:
        raise ValueError(f"a text is stored as kind {kind}, which holds no characters")
    text = str(data, _ENCODINGS[kind])
    if math.prod(matrix.shape) != len(text) or (text and matrix.shape[0] != 1):
        raise ValueError(f"the text {text[:40]!r} is not of its shape {matrix.shape}")
    return text


def read_whole_number(payload: memoryview) -> int:
    """Decode a matrix that is one whole number; raise `ValueError` if it is anything else."""
    matrix = _matrix(payload)
    numeric = matrix.kind in _NUMBER_CLASSES and math.prod(matrix.shape) == 1
    if not numeric or len(matrix.parts) != 1:
        raise ValueError("a matrix that should be one number is none")
    kind, data = matrix.parts[0]
    if kind not in _NUMBERS or _NUMBERS[kind].size != len(data):
        raise ValueError(f"a number is stored as {len(data)} bytes of kind {kind}")
    value: int | float = _NUMBERS[kind].unpack(data)[0]
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _struct_array(matrix: _Matrix) -> StructArray:
    if matrix.kind != _STRUCT_CLASS or len(matrix.parts) < 2:
        raise ValueError(f"its variable {matrix.name!r} is no struct array")
    (_, width), (_, names), *cells = matrix.parts
    fields = _field_names(width, names)
    if any(kind != _MATRIX for kind, _ in cells):
        raise ValueError("a field of a struct holds no matrix")
    count = math.prod(matrix.shape)
    if len(cells) != count * len(fields):
        raise ValueError(f"{count} structs of {len(fields)} fields have {len(cells)} values")
    rows = zip(*[iter(payload for _, payload in cells)] * len(fields), strict=True)
    return StructArray(fields, tuple(rows))


def _field_names(width: memoryview, names: memoryview) -> tuple[str, ...]:
    """Split the names: each fills `width` bytes, zeros after its end."""
    if len(width) != 4:
        raise ValueError("the width of the names of fields is no number")
    step = int.from_bytes(width, "little")
    if not 1 <= step <= len(names) or len(names) % step:
        raise ValueError(f"{len(names)} bytes of names of fields are not of width {step}")
    starts = range(0, len(names), step)
    fields = tuple(str(names[at : at + step], "ascii").partition("\0")[0] for at in starts)
    if len(set(fields)) != len(fields):
        raise ValueError("two fields have one name")
    return fields


def _variables(content: memoryview) -> Iterator[memoryview]:
    for kind, payload in _elements(content):
        if kind == _COMPRESSED:
            inner = _elements(memoryview(_inflated(payload)))
            yield from (inflated for kind, inflated in inner if kind == _MATRIX)
        elif kind == _MATRIX:
            yield payload


def _inflated(payload: memoryview) -> bytes:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(payload, INFLATED_LIMIT_BYTES)
    except zlib.error as error:
        raise ValueError(f"its compressed content is damaged ({error})") from error
    if inflater.eof:
        return content
    if len(content) >= INFLATED_LIMIT_BYTES:
        raise ValueError(f"a variable of it is over {INFLATED_LIMIT_BYTES >> 20} MiB")
    raise ValueError("its compressed content is truncated")


def _matrix(payload: memoryview) -> _Matrix:
    parts = tuple(_elements(payload))
    if len(parts) < 3:
        raise ValueError("a matrix is empty")
    (_, flags), (_, shape), (_, name) = parts[:3]
    if len(flags) != 8 or len(shape) < 8 or len(shape) % 4:
        raise ValueError("the header of a matrix is damaged")
    sides = struct.unpack(f"<{len(shape) // 4}i", shape)
    if min(sides) < 0:
        raise ValueError(f"a matrix has the shape {sides}")
    return _Matrix(flags[0], sides, str(name, "utf-8"), parts[3:])


def _elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield kind and payload of each element; payloads of up to four bytes lie in the tag."""
    at = 0
    while at < len(content):
        if len(content) - at < _TAG.size:
            raise ValueError("it is truncated")
        kind, size = _TAG.unpack_from(content, at)
        start, room = at + _TAG.size, len(content) - at - _TAG.size
        if kind >> 16:
            kind, size, start, room = kind & 0xFFFF, kind >> 16, at + 4, 4
        if size > room:
            raise ValueError(f"an element of {size} bytes does not fit where it is")
        yield kind, content[start : start + size]
        padding = 0 if kind == _COMPRESSED else (at - start - size) % 8
        at = start + size + padding
