"""How far preparing has come: a bar on a terminal, lines in a log, nothing where it is quick."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.indexing import progress
from data.indexing.progress import byte_progress
from tests.support.packings import class_folders, make_pictures
from tests.support.preparing import ROOT, run

PROGRAM = """
import sys
from data import prepare
from data.indexing import units
units.FEW_BYTES = -1
sys.exit(prepare.main(sys.argv[1:]))
"""
BAR = r"reading .*/[\d.]+ [kM]?(B|bytes) +[\d.]+ [kM]?(B|bytes)/s +\d:\d\d:\d\d"
LINE = r"reading: 0\.0 of 0\.0 GB, \d+ MB/s, \d:\d\d:\d\d left"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 images, read in 11 units."""
    monkeypatch.setattr("data.indexing.images.IMAGES_A_UNIT", 6)
    class_folders(tmp_path / "source", make_pictures(50, 10))
    return tmp_path / "source"


def on_terminal(command: list[str]) -> tuple[int, str]:
    """Run a command whose standard error is a terminal; return exit code and what that shows."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # all have closed it
            break
    process.communicate()
    os.close(ours)
    return process.returncode, re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode())


def test_a_terminal_shows_a_bar_with_speed_and_time_left(tmp_path: Path) -> None:
    source = tmp_path / "source"
    class_folders(source, make_pictures(50, 10))
    command = [sys.executable, "-c", PROGRAM, "imagefolder", str(source)]
    code, shown = on_terminal([*command, "--out", str(tmp_path / "out"), "--workers", "1"])
    assert code == 0, shown
    assert re.search(BAR, shown), shown


def test_a_log_gets_lines(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("data.indexing.units.FEW_BYTES", -1)
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    assert run("imagefolder", source, "--out", tmp_path / "out", "--workers", 1) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert all(re.fullmatch(LINE, line) for line in lines), lines


def test_what_is_quick_is_silent(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("imagefolder", source, "--out", tmp_path / "out", "--workers", 2) == 0
    assert capsys.readouterr().err == ""


def test_speed_is_of_this_attempt_and_lines_are_rare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with byte_progress("reading", total=100_000_000_000, already=40_000_000_000) as advance:
        for _ in range(6):
            now[0] += 10.0
            advance(1_000_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 43.0 of 100.0 GB, 100 MB/s, 0:09:30 left",
        "reading: 46.0 of 100.0 GB, 100 MB/s, 0:09:00 left",
    ]


def test_a_standstill_is_no_division_by_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with byte_progress("reading", total=2_000_000_000) as advance:
        now[0] += 30.0
        advance(0)
    assert capsys.readouterr().err == "reading: 0.0 of 2.0 GB, 0 MB/s, ? left\n"
