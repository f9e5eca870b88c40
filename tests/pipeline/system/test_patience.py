"""A disk that is full or unreachable for a while costs time, and any other error is reported."""

import errno
import os
from collections.abc import Callable

import pytest

from pipeline.system import patience
from pipeline.system.patience import patiently


def failing(times: float, number: int = errno.ENOSPC) -> Callable[[], str]:
    """Return a function that fails so many times and then succeeds."""
    left = [times]

    def use_disk() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))
        return "written"

    return use_disk


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.001)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "ETIMEDOUT"])
def test_it_is_repeated_while_the_disk_is_full_or_unreachable(name: str) -> None:
    warnings: list[str] = []
    number = getattr(errno, name)
    assert patiently(failing(3, number), warn=warnings.append) == "written"
    assert warnings == [f"[Errno {number}] {os.strerror(number)}; retrying for up to 45 s"]


def test_by_default_the_warning_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert patiently(failing(2)) == "written"
    assert capsys.readouterr().err.startswith("warning: [Errno 28] No space left on device; ")


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "EROFS", "ENOTDIR", "EFBIG"])
def test_other_errors_are_raised_at_once(name: str) -> None:
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))):
        patiently(failing(1, getattr(errno, name)), warn=pytest.fail)


def test_an_error_that_lasts_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.02)
    with pytest.raises(OSError, match="No space left"):
        patiently(failing(float("inf")))


def test_it_may_be_given_up_earlier() -> None:
    tries: list[None] = []

    def give_up() -> bool:
        tries.append(None)
        return len(tries) == 3

    with pytest.raises(OSError, match="No space left"):
        patiently(failing(float("inf")), give_up=give_up)
    assert len(tries) == 3
