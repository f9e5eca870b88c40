"""Once a newer attempt has taken over a run, older attempts write nothing."""

import errno
import fcntl
from pathlib import Path

import pytest

from pipeline.checkpoint.writing import write_checkpoint
from pipeline.runs.fence import OWNER, TOKEN, Fence, FencedOut
from pipeline.runs.folder import LOCK, hold_run_folder
from tests.support.run_folders import config, hold_once
from tests.support.snapshots import snapshot


@pytest.mark.parametrize("before", ["", "8.0.0"])
def test_without_a_token_a_process_gives_way_to_an_attempt_that_begins_after_it(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    if before:
        (tmp_path / OWNER).write_text(before)
    fence = Fence.around(tmp_path)
    assert not fence.is_active
    fence.expect_mine()
    (tmp_path / OWNER).write_text("9.0.0")
    with pytest.raises(
        FencedOut, match=r"attempt 9\.0\.0 has taken over the run from this process"
    ):
        fence.expect_mine()
    Fence.around(tmp_path).expect_mine()


def test_a_disk_that_fails_at_the_start_does_not_make_an_old_attempt_look_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    (tmp_path / OWNER).write_text("8.0.0")
    read, failures = Path.read_text, [errno.EIO, errno.ESTALE]

    def read_text(path: Path) -> str:
        if failures:
            raise OSError(failures.pop(), "the disk fails")
        return read(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    Fence.around(tmp_path).expect_mine()


def test_only_the_owner_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "7.0.1")
    fence = Fence.around(tmp_path)
    fence.expect_mine()  # no attempt owns the run yet
    (tmp_path / OWNER).write_text("7.0.1\n")
    fence.expect_mine()
    (tmp_path / OWNER).write_text("7.1.0")
    with pytest.raises(FencedOut, match=r"7\.1\.0 has taken over the run from attempt 7\.0\.1"):
        fence.expect_mine()


def test_the_lock_of_a_lost_node_does_not_stop_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, run_dir=tmp_path / "run")
    folder = hold_once(settings)
    with (folder / LOCK).open("a") as lost:
        fcntl.flock(lost, fcntl.LOCK_EX)
        monkeypatch.delenv(TOKEN, raising=False)
        with (
            pytest.raises(ValueError, match="in use by a running process"),
            hold_run_folder(settings),
        ):
            pass
        monkeypatch.setenv(TOKEN, "7.1.0")
        (folder / OWNER).write_text("7.1.0")
        with hold_run_folder(settings) as held:
            assert held == folder


def test_an_older_attempt_writes_no_checkpoint_and_disturbs_no_other(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text("7.1.0")
    older, owner = (Fence(tmp_path / OWNER, token) for token in ("7.0.0", "7.1.0"))
    in_progress = tmp_path / "checkpoints" / ".step-00000002.1.tmp"
    in_progress.mkdir(parents=True)
    with pytest.raises(FencedOut):
        write_checkpoint(tmp_path / "checkpoints", snapshot(2), older)
    assert list((tmp_path / "checkpoints").iterdir()) == [in_progress]
    assert write_checkpoint(tmp_path / "checkpoints", snapshot(2), owner).exists()
