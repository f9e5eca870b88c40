"""Progress of long reads: rare lines in a log, with the speed of this attempt."""

from types import SimpleNamespace

import pytest

from pipeline.system import progress
from pipeline.system.progress import byte_progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, for tests to change."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_speed_is_of_this_attempt_and_lines_are_rare(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with byte_progress("reading", total=100_000_000_000, already=40_000_000_000) as advance:
        for _ in range(6):
            now[0] += 10.0
            advance(1_000_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 43.0 of 100.0 GB, 100 MB/s, 0:09:30 left",
        "reading: 46.0 of 100.0 GB, 100 MB/s, 0:09:00 left",
    ]


def test_a_standstill_does_not_divide_by_zero(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with byte_progress("reading", total=2_000_000_000) as advance:
        now[0] += 30.0
        advance(0)
    assert capsys.readouterr().err == "reading: 0.0 of 2.0 GB, 0 MB/s, ? left\n"


def test_few_bytes_are_silent(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with byte_progress("reading", total=progress.QUICK_BYTES) as advance:
        now[0] += 60.0
        advance(1_000_000)
    assert capsys.readouterr().err == ""
