"""A locked file has one owner, and a process that ends releases its locks."""

import errno
import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.system.locks import lock_file, open_locked

HOLDER = """
import sys
from pathlib import Path
from pipeline.system.locks import open_locked
file = open_locked(Path(sys.argv[1]))
print(file is not None, flush=True)
sys.stdin.read()
"""


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_locked_file_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = open_locked(path)
    assert first is not None
    before = open_descriptors()
    assert open_locked(path) is None
    assert open_descriptors() == before
    with path.open("a") as other:
        assert not lock_file(other)
        first.close()
        assert lock_file(other)


def test_waiting_takes_the_lock_once_it_is_released(tmp_path: Path) -> None:
    first = open_locked(tmp_path / "lock")
    assert first is not None
    taken = threading.Event()

    def wait() -> None:
        second = open_locked(tmp_path / "lock", wait=True)
        assert second is not None
        taken.set()
        second.close()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not taken.wait(0.2)
    first.close()
    assert taken.wait(20)
    thread.join()


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert open_locked(path) is None
        holder.kill()
    file = open_locked(path)
    assert file is not None
    file.close()


def test_the_content_of_a_locked_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("kept")
    file = open_locked(tmp_path / "lock")
    assert file is not None
    file.close()
    assert (tmp_path / "lock").read_text() == "kept"


def test_a_file_system_without_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = open_descriptors()
    with pytest.raises(OSError, match="No locks available"):
        open_locked(tmp_path / "lock")
    assert open_descriptors() == before
