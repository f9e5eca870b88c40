"""Progress of preparing: a bar on a terminal, lines in a log, nothing for few bytes."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.system import progress
from tests.support.packings import class_folders, make_pictures
from tests.support.preparing import ROOT, run

PROGRAM = """
import sys
from data import prepare
from data.indexing import reading
from pipeline.system import progress
reading.FEW_BYTES = progress.QUICK_BYTES = -1
sys.exit(prepare.main(sys.argv[1:]))
"""
BAR = r"reading .*/[\d.]+ [kM]?(B|bytes) +[\d.]+ [kM]?(B|bytes)/s +\d:\d\d:\d\d"
LINE = r"reading: [\d.]+ of [1-9][\d.]* KB, [\d.]+ MB/s, \d:\d\d:\d\d left"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 images, read in 11 units."""
    monkeypatch.setattr("data.indexing.image_files.IMAGES_A_UNIT", 6)
    class_folders(tmp_path / "source", make_pictures(50, 10))
    return tmp_path / "source"


def on_terminal(command: list[str]) -> tuple[int, str]:
    """Run a command with a terminal as standard error; return exit code and what that shows."""
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


@pytest.mark.process
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
    monkeypatch.setattr("data.indexing.reading.FEW_BYTES", -1)
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "QUICK_BYTES", -1)
    assert run("imagefolder", source, "--out", tmp_path / "out", "--workers", 1) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert all(re.fullmatch(LINE, line) for line in lines), lines


def test_few_bytes_are_silent(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("imagefolder", source, "--out", tmp_path / "out", "--workers", 2) == 0
    assert capsys.readouterr().err == ""
