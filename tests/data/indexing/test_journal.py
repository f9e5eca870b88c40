"""The journal: complete records are found again, torn ones are ignored."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from data.indexing.journal import JOURNAL, Journal
from data.indexing.reading import FEW_BYTES, read_units
from data.indexing.unit import BadImage, UnitContent
from pipeline.dataset.samples import Sample, StoredFile, collect, digest


@dataclass(frozen=True)
class Numbered:
    """A unit of one sample that records when it is read."""

    number: int
    read_before: list[int]

    @property
    def key(self) -> str:
        return f"unit {self.number}"

    @property
    def size(self) -> int:
        return FEW_BYTES

    def read(self) -> UnitContent:
        self.read_before.append(self.number)
        return found(self.number)


def found(number: int) -> UnitContent:
    name = f"{number}.jpg"
    sample = Sample(name, 3, 5, number, 7, 9, digest(name.encode()))
    bad = (BadImage(f"bad\n\udcff{number}", "why\n"),) * number
    return UnitContent(collect([sample], [StoredFile(name, 100, 5)]), bad)


def same(one: UnitContent | None, other: UnitContent | None) -> bool:
    if one is None or other is None:
        return one is other
    tables = one.samples.table().equals(other.samples.table())
    return tables and (one.bad, one.samples.files) == (other.bad, other.samples.files)


UNITS = [Numbered(number, []) for number in range(4)]


@pytest.fixture
def written(tmp_path: Path) -> tuple[bytes, list[int]]:
    """A journal of all `UNITS`, and where each record ends."""
    ends: list[int] = []
    with Journal(tmp_path / "written") as journal:
        for unit in UNITS:
            journal.keep(unit, found(unit.number))
            ends.append((tmp_path / "written").stat().st_size)
    return (tmp_path / "written").read_bytes(), ends


def known(path: Path) -> list[UnitContent | None]:
    with Journal(path) as journal:
        return [journal.find(unit) for unit in UNITS]


def test_a_journal_returns_what_was_kept(tmp_path: Path, written: tuple[bytes, object]) -> None:
    noted = known(tmp_path / "written")
    assert all(same(note, found(number)) for number, note in enumerate(noted))
    assert (tmp_path / "written").read_bytes() == written[0]


def test_a_torn_record_is_ignored(tmp_path: Path, written: tuple[bytes, list[int]]) -> None:
    content, ends = written
    path = tmp_path / "torn"
    for cut in range(0, len(content), 19):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        notes = known(path)
        assert [note is not None for note in notes] == [True] * whole + [False] * (4 - whole)
        with Journal(path) as journal:  # and later records are found
            journal.keep(UNITS[3], found(3))
        assert same(known(path)[3], found(3))


GARBAGE = {
    "zeros": bytes(4096),
    "a length beyond any file": b"k" * 48 + b"\xff" * 8,
    "a length beyond this file": b"k" * 48 + (1 << 40).to_bytes(8, "little") + b"x",
    "text": b"text " * 50,
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_ignored(
    garbage: str, before: bool, tmp_path: Path, written: tuple[bytes, object]
) -> None:
    path = tmp_path / "garbage"
    path.write_bytes((written[0] if before else b"") + GARBAGE[garbage])
    assert [note is not None for note in known(path)] == [before] * 4
    with Journal(path) as journal:
        journal.keep(UNITS[2], found(1))
    assert same(known(path)[2], found(1))


def test_a_changed_byte_is_noticed(tmp_path: Path, written: tuple[bytes, list[int]]) -> None:
    content, _ = written
    path = tmp_path / "changed"
    for at in range(0, len(content), 29):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        notes = known(path)
        assert all(note is None or same(note, found(k)) for k, note in enumerate(notes))
        assert sum(note is not None for note in notes) < 4, at


def test_only_one_process_prepares_a_folder(tmp_path: Path) -> None:
    units = [Numbered(number, []) for number in range(2)]
    with (
        Journal(tmp_path / JOURNAL),
        pytest.raises(ValueError, match="is being prepared by another process; wait until it ends"),
    ):
        read_units(units, out=tmp_path, workers=1)
    assert len(read_units(units, out=tmp_path, workers=1)) == 2


def test_units_read_before_an_error_are_kept(tmp_path: Path) -> None:
    class Damaged(Numbered):
        def read(self) -> UnitContent:
            raise ValueError("it is damaged")

    log: list[int] = []
    with pytest.raises(ValueError, match="it is damaged"):
        read_units([Numbered(0, log), Numbered(1, log), Damaged(2, log)], out=tmp_path, workers=1)
    results = read_units([Numbered(number, log) for number in range(3)], out=tmp_path, workers=1)
    assert log == [0, 1, 2]
    assert all(same(result, found(number)) for number, result in enumerate(results))


def test_few_bytes_have_no_journal(tmp_path: Path) -> None:
    log: list[int] = []
    assert len(read_units([Numbered(0, log)], out=tmp_path / "out", workers=9)) == 1
    assert not (tmp_path / "out").exists()
