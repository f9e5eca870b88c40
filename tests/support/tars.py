"""Tar archives made block by block, and their content by tarfile."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from data.formats.tar import BLOCK, TarMember, list_members, walk

Format = Literal[0, 1, 2]
USTAR: Format = 0
GNU: Format = 1
PAX: Format = 2
FORMATS: list[Format] = [USTAR, GNU, PAX]
END = bytes(2 * BLOCK)
Found = list[tuple[TarMember, bytes]]


def pack(
    contents: Mapping[str, bytes],
    form: Format = GNU,
    *,
    folders: Iterable[str] = (),
    owner: int = 0,
) -> bytes:
    """The archive that tarfile makes, without what does not fit the format."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form, encoding="utf-8") as out:
        for name, content in [*((name, None) for name in folders), *contents.items()]:
            info = tarfile.TarInfo(name)
            info.uid = owner
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            with suppress(ValueError):
                out.addfile(info, io.BytesIO(content or b""))
    return archive.getvalue()


def header(
    name: str = "x", size: int = 0, kind: bytes = tarfile.REGTYPE, form: Format = USTAR
) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(form, "utf-8", "surrogateescape")


def member(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(content), kind, GNU) + padded(content)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def patched(block: bytes, at: int, new: bytes) -> bytes:
    """A header with other bytes at a place, and the right checksum."""
    block = block[:at] + new + block[at + len(new) :]
    return with_sum(block, sum(block) - sum(block[148:156]))


def with_sum(block: bytes, total: int) -> bytes:
    return block[:148] + b"%06o\0 " % (total + 8 * ord(" ")) + block[156:]


def pax(*records: tuple[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    return member("PaxHeaders/x", b"".join(record(*words) for words in records), kind)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    lengths = range(len(rest), len(rest) + 9)
    return next(b"%d" % n + rest for n in lengths if len(b"%d" % n + rest) == n)


def by_tarfile(content: bytes, *, at: int = 0) -> Found:
    found: Found = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:", encoding="utf-8") as archive:
        for info in archive:
            stream = archive.extractfile(info)
            if stream and info.isreg():
                found.append(
                    (TarMember(info.name, at + info.offset_data, info.size), stream.read())
                )
    return found


def walked(path: Path, *, start: int = 0, end: int | None = None) -> Found:
    return [(found, bytes(content)) for found, content in walk(path, start=start, end=end)]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "archive.tar"
    path.write_bytes(content)
    return path


def refusal(path: Path, *, start: int = 0, end: int | None = None) -> str:
    """The message with which an archive is refused, without its path."""
    with pytest.raises(ValueError) as caught:
        walked(path, start=start, end=end)
    with pytest.raises(ValueError) as listing:
        list(list_members(path, start=start, end=end))
    said = str(caught.value)
    assert said == str(listing.value)
    assert "\n" not in said
    assert said.startswith(f"{path} ")
    return said.removeprefix(f"{path} ")
