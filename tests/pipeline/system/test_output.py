"""A log on a full disk resumes with a note of what is missing."""

import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from pipeline.system.output import LastingFile, lasting_output
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
NOTE = re.compile(
    r"\[([\d,]+) lines? (?:is|are) missing here, from [\d:]{8} to [\d:]{8}:"
    r" No space left on device\]"
)


@pytest.fixture
def disk(tmp_path: Path) -> Generator[SmallDisk]:
    with small_disk(tmp_path / "disk", "1m") as disk:
        yield disk


def test_each_line_is_whole_or_counted_as_missing(disk: SmallDisk) -> None:
    path = disk.folder / "log"
    lines = [f"line {number}" for number in range(3000)]
    with path.open("wb", buffering=0) as opened:
        log = LastingFile(opened.fileno())
        for number, line in enumerate(lines):
            if number in (1000, 2000):
                disk.fill()
            if number in (1500, 2999):
                disk.empty()
            assert log.write(f"{line}\n".encode()) == len(line) + 1
    found = path.read_text().splitlines()
    notes = [int(match[1].replace(",", "")) for each in found if (match := NOTE.fullmatch(each))]
    kept = [each for each in found if not NOTE.fullmatch(each)]
    assert len(notes) == 2
    assert len(kept) + sum(notes) == len(lines)
    assert kept == [line for line in lines if line in set(kept)]
    assert kept[-1] == lines[-1]
    for number in (1500, 2999):  # each note is where its lines are missing
        assert NOTE.fullmatch(found[found.index(f"line {number}") - 1])


def test_what_is_missing_at_the_end_is_noted_at_the_end(disk: SmallDisk) -> None:
    path = disk.folder / "log"
    with path.open("wb", buffering=0) as opened:
        log = LastingFile(opened.fileno())
        log.write(b"begin\n")  # the rest of its page stays free
        disk.fill()
        log.write(b"x" * 5000 + b"\ntwo\nthree\n")
        disk.empty()
        log.catch_up()
    _, long, note = path.read_text().splitlines()
    assert long == "x" * 5000
    assert NOTE.fullmatch(note)
    assert note.startswith("[2 lines are missing")


PROGRAM = """
import sys
from pathlib import Path
from pipeline.system.output import lasting_output
from tests.support.small_disk import SmallDisk

disk = SmallDisk(Path(sys.argv[1]))
with lasting_output():
    print("before: \\u00e9")
    disk.fill()
    for number in range(2000):
        print("out", number)
        print("error", number, file=sys.stderr)
    if sys.argv[2] == "emptied":
        disk.empty()
        print("after")
print("restored", file=sys.__stdout__ if sys.argv[2] == "emptied" else open("/dev/null", "w"))
sys.exit(7)
"""


@pytest.mark.parametrize("end", ["full", "emptied"])
def test_a_program_with_one_log_for_both_streams_ends_as_it_would_without(
    disk: SmallDisk, end: str
) -> None:
    """Python itself would end with 120, since it cannot flush its streams."""
    path = disk.folder / "log"
    with path.open("wb") as log:
        command = [sys.executable, "-c", PROGRAM, str(disk.folder), end]
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
    assert code == 7
    lines = path.read_text().splitlines()
    assert lines[0] == "before: é"
    if end == "emptied":
        assert lines[-2:] == ["after", "restored"]
        assert sum(NOTE.fullmatch(line) is not None for line in lines) == 1


def test_terminals_and_pipes_are_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        before = sys.stdout, sys.stderr
        with lasting_output():
            assert (sys.stdout, sys.stderr) == before
            print("captured")
    assert capsys.readouterr().out == "captured\n"


def test_streams_are_restored_and_may_be_wrapped_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        with lasting_output():
            assert sys.stdout is not log
            with lasting_output():
                print("inner")
            print("outer")
        assert sys.stdout is log
        print("restored")
    assert (tmp_path / "log").read_text() == "inner\nouter\nrestored\n"
