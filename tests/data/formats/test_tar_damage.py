"""A damaged archive is refused, or gives only members that are in it."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.formats.tar import BLOCK, TarMember, list_members, walk
from tests.support.tars import FORMATS, by_tarfile, pack, patched, refusal, walked, written

CONTENTS = {"a/b": b"1", "n" * 120: b"2" * 700, "\u00e4" * 60: b"", "last": b"3" * BLOCK}
ARCHIVES = [pack(CONTENTS, form, folders=["a"]) for form in FORMATS]
Edit = tuple[float, int, bytes]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 1, 2, 8, BLOCK]), st.binary(max_size=9)),
    max_size=3,
)


def edited(content: bytes, changes: list[Edit]) -> bytes:
    """Replace some bytes at each place; a place is a fraction of the archive."""
    for place, gone, new in changes:
        at = int(place * len(content.rstrip(b"\0")))
        content = content[:at] + new + content[at + gone :]
    return content


def mended(content: bytes) -> bytes:
    """The content with correct checksums, so that the checks after them are tested."""
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    return b"".join(
        patched(block, 0, b"") if block[257:262] == b"ustar" and len(block) == BLOCK else block
        for block in blocks
    )


def assert_sound(path: Path, content: bytes) -> None:
    """Either it is refused, or its files lie in the archive one after the other."""
    path.write_bytes(content)
    try:
        found = walked(path)
    except ValueError:
        refusal(path)
        return
    assert [place for place, _ in found] == list(list_members(path))
    end = 0
    for (name, offset, size), held in found:
        assert offset >= end + BLOCK
        assert len(held) == size
        assert content[offset : offset + size] == held
        assert lies_in(content, name.encode())
        end = offset + size


def lies_in(content: bytes, name: bytes) -> bool:
    """Whether a name is in an archive, as a whole or in the two fields of a header."""
    halves = [(name[:at], name[at + 1 :]) for at in range(len(name)) if name[at : at + 1] == b"/"]
    return name in content or any(a in content and b in content for a, b in halves)


@pytest.mark.slow
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.sampled_from(ARCHIVES), changes=edits, mend=st.booleans())
def test_a_damaged_archive_is_refused_or_read_correctly(
    tmp_path: Path, content: bytes, changes: list[Edit], mend: bool
) -> None:
    damaged = edited(content, changes)
    assert_sound(tmp_path / "archive.tar", mended(damaged) if mend else damaged)


@pytest.mark.parametrize("content", ARCHIVES)
def test_an_archive_truncated_anywhere_is_refused_or_read_correctly(
    tmp_path: Path, content: bytes
) -> None:
    path = written(tmp_path, content)
    whole = by_tarfile(content)
    assert walked(path) == whole
    for end in reversed(range(0, len(content.rstrip(b"\0")), 7)):
        os.truncate(path, end)
        found: list[tuple[TarMember, bytes]] = []
        try:
            for place, held in walk(path):
                found.append((place, bytes(held)))
        except ValueError:
            pass
        else:
            assert end % BLOCK == 0
        assert found == whole[: len(found)]
