"""Archives read in place: the same members as with tarfile, and their offsets."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.formats import tar
from data.formats.tar import BLOCK, TarMember, list_members, walk
from tests.support.tars import (
    END,
    FORMATS,
    Format,
    by_tarfile,
    header,
    member,
    pack,
    padded,
    patched,
    pax,
    walked,
    with_sum,
    written,
)

# --------------------------------------------------------------------- archives by tarfile

steps = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
names = (
    st.lists(steps.filter(lambda step: step not in (".", "..")), min_size=1, max_size=4)
    .flatmap(lambda parts: st.sampled_from([parts, [part * 40 for part in parts]]))
    .map("/".join)
    .filter(lambda name: len(name) < 4000)
)
archives = st.builds(
    pack,
    st.dictionaries(names, st.binary(max_size=1100), max_size=5),
    st.sampled_from(FORMATS),
    folders=st.lists(names, max_size=2),
    owner=st.sampled_from([0, 0, 1 << 40]),
)
same_folder = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@same_folder
@given(content=archives, read_ahead=st.sampled_from([1, 700, 4096, 1 << 20]))
def test_members_and_contents_are_those_of_tarfile(
    tmp_path: Path, content: bytes, read_ahead: int
) -> None:
    path = written(tmp_path, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar, "READ_AHEAD", read_ahead)
        assert walked(path) == by_tarfile(content)
    assert list(list_members(path)) == [found for found, _ in by_tarfile(content)]


@settings(same_folder, max_examples=40)
@given(inner=st.lists(archives, min_size=1, max_size=2), form=st.sampled_from(FORMATS))
def test_an_inner_archive_is_read_in_place(
    tmp_path: Path, inner: list[bytes], form: Format
) -> None:
    outer = pack({f"{number}.tar": content for number, content in enumerate(inner)}, form)
    path = written(tmp_path, outer)
    found = list(list_members(path))
    assert [outer[at.offset : at.offset + at.size] for at in found] == inner
    for place, content in zip(found, inner, strict=True):
        span = {"start": place.offset, "end": place.offset + place.size}
        assert walked(path, **span) == by_tarfile(content, at=place.offset)
        assert [at for at, _ in walked(path, **span)] == list(list_members(path, **span))
        for at, held in walked(path, **span):
            assert outer[at.offset : at.offset + at.size] == held


def test_long_names_in_gnu_and_pax_are_read(tmp_path: Path) -> None:
    contents = {"a/" + "n" * 300: b"1", "b": b"2" * BLOCK, "\u00e4" * 90: b"3", "./c//d": b""}
    for form in FORMATS[1:]:
        path = written(tmp_path, pack(contents, form))
        assert {found.name: content for found, content in walked(path)} == contents


def test_contents_may_be_larger_than_the_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "READ_AHEAD", 1000)
    contents = {str(size): os.urandom(size) for size in (10, 5000, 999, 20_000, 1, 0, 19_000)}
    path = written(tmp_path, pack(contents))
    assert {found.name: content for found, content in walked(path)} == contents


@pytest.mark.parametrize("form", FORMATS[1:])
def test_sizes_may_exceed_the_octal_digits(tmp_path: Path, form: Format) -> None:
    size = (9 << 30) + 1
    large = header("large", size, form=form)
    path = written(tmp_path, large)
    after = len(large) + size + -size % BLOCK
    os.truncate(path, after)
    with path.open("ab") as stream:
        stream.write(member("small", b"12") + END)
    found = [TarMember("large", len(large), size), TarMember("small", after + BLOCK, 2)]
    assert list(list_members(path)) == found
    with pytest.raises(ValueError, match=f"'large' at byte {len(large) - BLOCK} has {size} bytes"):
        walked(path)


# --------------------------------------------------------------------- archives by others

FULL = patched(patched(header("\U0010ffff" * 25, 1), 157, b"\xff" * 100), 265, b"\xff" * 64)
SIGNED = header("\u00e4", 1)
OTHERS = {
    "version 7": (patched(header("x", 1), 257, bytes(243)), "x"),
    "numbers without leading zeros": (patched(header(), 124, b"          1 "), "x"),
    "number of base 256": (patched(header(), 124, b"\x80" + bytes(10) + b"\1"), "x"),
    "prefix": (patched(header("x", 1), 345, b"deep/er"), "deep/er/x"),
    "no prefix but times of GNU tar": (
        patched(patched(header("x", 1), 257, b"ustar  \0"), 345, b"14000000000\0"),
        "x",
    ),
    "rest of an older name": (patched(header("x", 1), 2, b"older"), "x"),
    "signed checksum": (with_sum(SIGNED, sum(SIGNED) - sum(SIGNED[148:156]) - 512), "\u00e4"),
    "sum beyond 65,521": (FULL, "\U0010ffff" * 25),
    "path of PAX over that of GNU tar": (
        pax(("path", "pax")) + member("@", b"gnu\0", b"L") + header("x", 1),
        "pax",
    ),
    "size of PAX": (pax(("size", "1"), ("mtime", "1.5")) + header("x", 0), "x"),
    "PAX of Solaris": (pax(("path", "pax"), kind=b"X") + header("x", 1), "pax"),
    "path of PAX for all": (
        pax(("path", "all"), ("comment", "=\n="), kind=b"g") + header("x", 1),
        "all",
    ),
    "own path of PAX over that for all": (
        pax(("path", "all"), kind=b"g") + pax(("path", "own")) + header("x", 1),
        "own",
    ),
    "folder of version 7": (header("folder/", 0, b"\0") + header("x", 1), "x"),
    "folder with a size": (
        patched(header("x", 0, b"5"), 124, b"00000001000\0") + header("y", 1),
        "y",
    ),
    "long name of a folder": (
        member("@", b"n" * 200 + b"/\0", b"L") + header("n", 0, b"5") + header("y", 1),
        "y",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_headers_of_other_programs_are_read(tmp_path: Path, kind: str) -> None:
    headers, name = OTHERS[kind]
    path = written(tmp_path, member("first", b"1") + headers + padded(b"c") + END)
    found = walked(path)[1:]
    assert found == [(TarMember(name, 2 * BLOCK + len(headers), 1), b"c")]


def test_records_for_one_member_do_not_affect_the_next(tmp_path: Path) -> None:
    content = pax(("path", "own")) + member("x", b"1") + member("y", b"2") + END
    path = written(tmp_path, content)
    assert [found.name for found in list_members(path)] == ["own", "y"]


@pytest.mark.parametrize("end", [b"", bytes(BLOCK), END, END + b"junk", END + b"j" * 9999])
def test_an_archive_ends_with_its_span_or_with_empty_blocks(tmp_path: Path, end: bytes) -> None:
    content = member("x", b"1")
    path = written(tmp_path, content + end)
    assert walked(path) == by_tarfile(content + end) == [(TarMember("x", BLOCK, 1), b"1")]


def test_a_blank_size_is_zero(tmp_path: Path) -> None:
    content = patched(header(), 124, b" " * 12) + END
    assert walked(written(tmp_path, content)) == by_tarfile(content)


def test_an_empty_archive_has_no_members(tmp_path: Path) -> None:
    assert walked(written(tmp_path, END)) == []


def test_contents_are_read_only(tmp_path: Path) -> None:
    path = written(tmp_path, pack({"x": b"1"}))
    assert [content.readonly for _, content in walk(path)] == [True]


# --------------------------------------------------------------------- files that change


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "READ_AHEAD", BLOCK)
    path = written(tmp_path, pack({str(number): b"1" for number in range(9)}))
    for function in (walk, list_members):
        steps = function(path)
        next(steps)
        os.truncate(path, 1200)
        with pytest.raises(
            ValueError, match=r"archive\.tar shrank to 1200 bytes while it was read"
        ):
            list(steps)
        os.truncate(path, 10_240)


def test_a_failing_disk_is_reported_with_the_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    path = written(tmp_path, pack({"x": b"1"}))
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match=r"Input/output error at byte 0: '.*archive.tar'") as caught:
        walked(path)
    assert caught.value.errno == errno.EIO
