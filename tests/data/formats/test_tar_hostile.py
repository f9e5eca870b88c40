"""Everything that is not an archive of plain files is refused, with the reason."""

import bz2
import gzip
import io
import lzma
import os
import zipfile
from pathlib import Path

import pytest

from data.formats.tar import BLOCK, TarMember, list_members
from tests.support.tars import (
    END,
    header,
    member,
    pack,
    patched,
    pax,
    record,
    refusal,
    walked,
    written,
)

FETCH = "fetch the archive again"
DISTRUST = "fetch the archive from a source that you trust"
LEAVE_OUT = "leave it out of the archive"
HOLDS = b"12345"
"""The content of a hostile member."""


# ------------------------------------------------------------------------- members

LEADS_OUT = f"leads out of the folder of the archive; {DISTRUST}"
IS_FOLDER = f"has the name of a folder; {DISTRUST}"
NOT_UTF8 = "has a name that is not UTF-8; rename the file and pack it again"
NUL = f"has a NUL in its name; {DISTRUST}"
SPARSE = "is a sparse file; pack it again without --sparse"
IMPOSSIBLE = f"has an impossible size; {FETCH}"
MALFORMED = f"is a malformed PAX header; {FETCH}"
LINK = "pack the archive again with tar"
EVIL = {
    "absolute": (member("/etc/x", HOLDS), f"'/etc/x' at byte 1024 {LEADS_OUT}"),
    "above": (member("../x", HOLDS), f"'../x' at byte 1024 {LEADS_OUT}"),
    "above, then below": (member("a/../x", HOLDS), f"'a/../x' at byte 1024 {LEADS_OUT}"),
    "above at last": (member("a/..", HOLDS), f"'a/..' at byte 1024 {LEADS_OUT}"),
    "no name": (member("", HOLDS), f"'' at byte 1024 has no name; {DISTRUST}"),
    "dot": (member(".", HOLDS), f"'.' at byte 1024 {IS_FOLDER}"),
    "folder by name": (member("a/", HOLDS), f"'a/' at byte 1024 {IS_FOLDER}"),
    "prefix above": (patched(header("x"), 345, b".."), f"'../x' at byte 1024 {LEADS_OUT}"),
    "not UTF-8": (member("\udcff", HOLDS), f"'\\udcff' at byte 1024 {NOT_UTF8}"),
    "line end": (member("../a\nb", HOLDS), f"'../a\\nb' at byte 1024 {LEADS_OUT}"),
    "PAX path above": (pax(("path", "../x")) + header(), f"'../x' at byte 2048 {LEADS_OUT}"),
    "PAX path above for all": (
        pax(("path", "/x"), kind=b"g") + header(),
        f"'/x' at byte 2048 {LEADS_OUT}",
    ),
    "PAX path empty": (pax(("path", "")) + header(), "'' at byte 2048 has no name"),
    "PAX path with NUL": (pax(("path", "a\0b")) + header(), f"'a\\x00b' at byte 2048 {NUL}"),
    "long name with NUL": (
        member("@", b"a\0b\0", b"L") + header(),
        f"'a\\x00b' at byte 2048 {NUL}",
    ),
    "long name above": (member("@", b"../x\0", b"L") + header(), f"byte 2048 {LEADS_OUT}"),
    "very long name": (
        member("@", b"n" * 5000, b"L") + header(),
        f"at byte 6656 has a name of more than 4,096 characters; {DISTRUST}",
    ),
    "hard link": (member("x", b"", b"1"), f"'x' at byte 1024 is a hard link; {LINK} --hard-de"),
    "symbolic link": (member("x", b"", b"2"), f"'x' at byte 1024 is a symbolic link; {LINK} -h"),
    "link with a long target": (
        member("@", b"t" * 200, b"K") + member("x", b"", b"2"),
        "'x' at byte 2048 is a symbolic link",
    ),
    "character device": (member("x", b"", b"3"), f"at byte 1024 is a device; {LEAVE_OUT}"),
    "block device": (member("x", b"", b"4"), f"at byte 1024 is a device; {LEAVE_OUT}"),
    "named pipe": (member("x", b"", b"6"), f"at byte 1024 is a named pipe; {LEAVE_OUT}"),
    "contiguous": (member("x", HOLDS, b"7"), f"is of an unknown kind, b'7'; {LEAVE_OUT}"),
    "volume": (member("x", b"", b"V"), f"is of an unknown kind, b'V'; {LEAVE_OUT}"),
    "part of a file": (member("x", HOLDS, b"M"), f"is of an unknown kind, b'M'; {LEAVE_OUT}"),
    "sparse": (member("x", HOLDS, b"S"), f"'x' at byte 1024 {SPARSE}"),
    "PAX sparse": (
        pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")) + member("x", HOLDS),
        f"'PaxHeaders/x' at byte 1024 {SPARSE}",
    ),
    "PAX sparse for all": (pax(("GNU.sparse.map", "0,1"), kind=b"g") + header(), SPARSE),
    "negative size": (patched(header(), 124, b"-0000000005\0"), f"byte 1024 {IMPOSSIBLE}"),
    "negative size, base 256": (patched(header(), 124, b"\xff" * 12), IMPOSSIBLE),
    "absurd size, base 256": (patched(header(), 124, b"\x80" + b"\xff" * 11), IMPOSSIBLE),
    "no size": (patched(header(), 124, b"five bytes\0\0"), IMPOSSIBLE),
    "negative PAX size": (pax(("size", "-5")) + member("x", HOLDS), f"byte 2048 {IMPOSSIBLE}"),
    "PAX size of 5,000 digits": (pax(("size", "9" * 5000)) + header(), IMPOSSIBLE),
    "PAX size with a point": (pax(("size", "5.0")) + member("x", HOLDS), IMPOSSIBLE),
    "too large": (
        patched(header(), 124, b"77777777777\0"),
        "byte 1024 is truncated: it needs 8589933568 more bytes",
    ),
    "PAX of words": (member("p", b"words", b"x") + header(), f"'p' at byte 1024 {MALFORMED}"),
    "PAX without length": (member("p", b" path=x\n", b"x") + header(), MALFORMED),
    "PAX record too short": (member("p", b"8 path=x\n", b"x") + header(), MALFORMED),
    "PAX record too long": (member("p", b"11 path=x\n", b"x") + header(), MALFORMED),
    "PAX record of no length": (member("p", b"0 path=x\n", b"x") + header(), MALFORMED),
    "PAX record of great length": (
        member("p", b"9" * 5000 + b" path=x\n", b"x") + header(),
        MALFORMED,
    ),
    "PAX record within its key": (member("p", b"4 a\n8 b=cde\n", b"g") + header(), MALFORMED),
    "PAX rest": (member("p", record("path", "x") + b"\0", b"x") + header(), MALFORMED),
    "long name of 2 MiB": (
        member("@", bytes(2 << 20), b"L") + header(),
        f"'@' at byte 1024 has a name or PAX header of 2097152 bytes; {DISTRUST}",
    ),
    "PAX of 2 MiB": (
        pax(("comment", "c" * (2 << 20))) + header(),
        "has a name or PAX header of",
    ),
}


@pytest.mark.parametrize("kind", EVIL)
def test_hostile_members_are_refused(tmp_path: Path, kind: str) -> None:
    blocks, reason = EVIL[kind]
    path = written(tmp_path, member("first", b"1") + blocks + END)
    said = refusal(path)
    assert said.startswith("cannot be indexed: '")
    assert reason in said
    found = list_members(path)
    assert next(found) == TarMember("first", BLOCK, 1), "members before it are read"


def test_the_first_member_is_refused_too(tmp_path: Path) -> None:
    path = written(tmp_path, member("/x", b"1") + END)
    assert refusal(path) == f"cannot be indexed: '/x' at byte 0 {LEADS_OUT}"


# ------------------------------------------------------------------------- archives


def zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("x", content)
    return archive.getvalue()


COMPRESSED = {
    "gzip; gunzip": gzip.compress(pack({"x": HOLDS})),
    "bzip2; bunzip2": bz2.compress(pack({"x": HOLDS})),
    "xz; unxz": lzma.compress(pack({"x": os.urandom(BLOCK)})),
    "zip; unzip": zipped(pack({"x": HOLDS})),
    "zstd; unzstd": b"\x28\xb5\x2f\xfd and more",
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_archives_are_refused(tmp_path: Path, kind: str) -> None:
    name, tool = kind.split("; ")
    said = (
        f"is compressed ({name}); decompress it with {tool}: only uncompressed archives are "
        "indexed in place"
    )
    assert refusal(written(tmp_path, COMPRESSED[kind])) == said
    path = written(tmp_path, member("x", COMPRESSED[kind]) + END)
    end = BLOCK + len(COMPRESSED[kind])
    assert refusal(path, start=BLOCK, end=end) == f"from byte 512 {said}"


@pytest.mark.parametrize("content", [b"", b"text", b"text" * 999, b"\xff\xd8\xff" * 999])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    reason = "is not a tar archive: it does not begin with a valid header"
    said = f"{reason}; give another file, or fetch the archive again"
    assert refusal(written(tmp_path, content)) == said


def test_a_name_does_not_make_an_archive_compressed(tmp_path: Path) -> None:
    path = written(tmp_path, pack({"BZh.jpg": HOLDS}))
    assert [found.name for found in list_members(path)] == ["BZh.jpg"]


SOUND = member("x", b"1") + member("y", b"2" * 600)
DAMAGED = {
    "checksum": (SOUND + b"Y" + header("y")[1:], f"the header at byte 2560 is invalid; {FETCH}"),
    "junk": (SOUND + b"j" * 600, f"the header at byte 2560 is invalid; {FETCH}"),
    "hole": (SOUND + bytes(BLOCK) + SOUND, f"an empty block begins at byte 2560; {FETCH}"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_archives_are_refused(tmp_path: Path, kind: str) -> None:
    content, reason = DAMAGED[kind]
    assert refusal(written(tmp_path, content)) == f"is damaged: {reason}"


TRUNCATED = {
    "content": (SOUND[:-1], f"'y' at byte 1024 is truncated: it needs 1 more bytes; {FETCH}"),
    "all content": (SOUND[:-1024], "'y' at byte 1024 is truncated: it needs 1024 more bytes"),
    "header": (
        SOUND[:1034],
        f"is truncated: the header at byte 1024 needs 502 more bytes; {FETCH}",
    ),
    "name only": (
        SOUND + member("@", b"n", b"L"),
        "is truncated: a member is missing at byte 3584",
    ),
    "PAX only": (
        SOUND + pax(("mtime", "1")) + END,
        "is truncated: a member is missing at byte 3584",
    ),
}


@pytest.mark.parametrize("kind", TRUNCATED)
def test_truncated_archives_are_refused(tmp_path: Path, kind: str) -> None:
    content, reason = TRUNCATED[kind]
    assert reason in refusal(written(tmp_path, content))


def test_a_span_beyond_the_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    said = f"is truncated: it needs 10 more bytes; {FETCH}"
    assert refusal(path, end=len(SOUND) + 10) == said


def test_folders_and_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert refusal(path) == "is not a plain file; give the path of a tar archive"
    with pytest.raises(FileNotFoundError, match="missing"):
        walked(tmp_path / "missing")
