"""A complete checkpoint exists whichever system call the disk fails at or the process dies at."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint import Snapshot, newest_checkpoint, write_checkpoint
from pipeline.runs.fence import Fence
from pipeline.system import patience
from pipeline.system.exit_codes import NotSaved
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.snapshots import (
    PROGRESS_AT_1,
    newest_step,
    open_checkpoints,
    save_all,
    snapshot,
    steps,
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the disk is final."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)


def run_script(script: str, *arguments: str) -> Any:
    """Run a script in a new process; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------ full disks


def test_a_failed_write_warns_and_the_next_one_succeeds(tmp_path: Path) -> None:
    folder, aside = tmp_path / "checkpoints", tmp_path / "aside"
    assert save_all(folder, [snapshot(1)]) == []
    folder.rename(aside)
    folder.write_text("in the way")
    warnings: list[str] = []
    with open_checkpoints(folder, warnings.append) as checkpoints:
        checkpoints.save(snapshot(2))
        checkpoints.wait()
        assert len(warnings) == 1
        assert "the checkpoint of step 2 could not be written" in warnings[0]
        folder.unlink()
        aside.rename(folder)
        assert newest_step(folder) == 1
        checkpoints.save(snapshot(3))
    assert "1 checkpoint could not be written" in warnings[1]
    assert "the newest is of step 3" in warnings[1]
    assert len(warnings) == 2
    assert newest_step(folder) == 3


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from tests.support.snapshots import newest_step, save_all, snapshot

folder = Path(sys.argv[1])
assert save_all(folder, [snapshot(1)]) == []
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the model takes 1,200 bytes
warnings = save_all(folder, [snapshot(2), snapshot(3)])
names = [path.name for path in folder.iterdir()]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps([warnings, names, newest_step(folder)]))
"""


@pytest.mark.process
def test_a_full_disk_loses_only_the_new_checkpoint(tmp_path: Path) -> None:
    warnings, names, newest = run_script(FULL_DISK, str(tmp_path))
    assert [warning.split(" could not be written")[0] for warning in warnings] == [
        "the checkpoint of step 2",
        "the checkpoint of step 3",
        "2 checkpoints",
    ]
    assert "the newest is of step 1" in warnings[-1]
    assert names == ["step-00000001"]  # nothing unfinished takes space
    assert newest == 1


def test_a_hanging_disk_delays_training_only_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()

    def write_late(folder: Path, one: Snapshot, fence: Fence) -> Path:
        hang.wait()
        return write_checkpoint(folder, one, fence)

    monkeypatch.setattr("pipeline.checkpoint.saving.write_checkpoint", write_late)
    monkeypatch.setattr("pipeline.checkpoint.saving.PATIENCE_SECONDS", 0.1)
    warnings: list[str] = []
    with open_checkpoints(tmp_path, warnings.append, keep_last=9) as checkpoints:
        checkpoints.save(snapshot(1))
        checkpoints.save(snapshot(2))
        assert "step 2 could not be written: the previous checkpoint is still" in warnings[0]
        threading.Timer(0.3, hang.set).start()
        checkpoints.save(snapshot(3), last=True)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000003"]
    assert newest_step(tmp_path) == 3


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_fails_at_the_end_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    with monkeypatch.context() as patch, open_checkpoints(tmp_path, warnings.append) as checkpoints:
        patch.setattr("os.scandir", fail)
        checkpoints.save(snapshot(1))
    assert "step 1 could not be written: [Errno 5]" in warnings[0]
    assert "the folder cannot be listed ([Errno 5]" in warnings[1]


def fail(*_: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_lack_of_memory_loses_only_the_new_checkpoint(
    tmp_path: Path,
) -> None:
    warnings: list[str] = []
    huge = torch.zeros(1).expand(2**48)
    with open_checkpoints(tmp_path, warnings.append) as checkpoints:
        checkpoints.save(Snapshot({"model": {"w": huge}}, replace(PROGRESS_AT_1, step=1)))
        checkpoints.save(snapshot(2))
    assert "step 1 could not be written: not enough host memory" in warnings[0]
    assert newest_step(tmp_path) == 2


# -------------------------------------------------------------------------- full for some seconds


@pytest.fixture
def disk(tmp_path: Path) -> Generator[SmallDisk]:
    with small_disk(tmp_path / "disk", "1m") as disk:
        yield disk


@pytest.mark.process
def test_a_disk_that_is_full_for_a_while_loses_no_checkpoint(disk: SmallDisk) -> None:
    warnings: list[str] = []
    with open_checkpoints(disk.folder, warnings.append) as checkpoints, disk.full_for(0.7):
        checkpoints.save(snapshot(1), last=True)
        checkpoints.expect_saved(1)
        assert newest_step(disk.folder) == 1
    (late,) = warnings
    assert late.startswith("the checkpoint of step 1 is late: [Errno 28] No space left on device")
    assert late.endswith("; retrying for up to 45 s")


@pytest.mark.process
def test_a_late_checkpoint_gives_way_to_the_next_one(disk: SmallDisk) -> None:
    warnings: list[str] = []
    disk.fill()
    with open_checkpoints(disk.folder, warnings.append) as checkpoints:
        checkpoints.save(snapshot(1))
        checkpoints.save(snapshot(2))
        disk.empty()
        checkpoints.expect_saved(2)
        with pytest.raises(NotSaved, match=r"of step 1, is not in .*No space left"):
            checkpoints.expect_saved(1)
    assert steps(disk.folder) == [2]


@pytest.mark.process
@pytest.mark.usefixtures("impatient")
def test_the_last_checkpoint_is_missed_if_the_disk_stays_full(disk: SmallDisk) -> None:
    warnings: list[str] = []
    with open_checkpoints(disk.folder, warnings.append) as checkpoints:
        checkpoints.save(snapshot(1))
        checkpoints.expect_saved(1)
        disk.fill()
        checkpoints.save(snapshot(2), last=True)
        with pytest.raises(NotSaved) as missed:
            checkpoints.expect_saved(2)
        for part in ("of step 2,", str(disk.folder), "same command again", "newest is of step 1"):
            assert part in str(missed.value)
        disk.empty()
        checkpoints.save(snapshot(3), last=True)
        checkpoints.expect_saved(3)


def test_a_missing_last_checkpoint_is_missed(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path, pytest.fail) as checkpoints:
        checkpoints.save(snapshot(1))
        checkpoints.expect_saved(1)
        with pytest.raises(NotSaved, match=r"of step 2, is not in .*\(it is missing\)"):
            checkpoints.expect_saved(2)


def test_a_checkpoint_that_does_not_fit_takes_no_space_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr("pipeline.checkpoint.writing.write_durably", pytest.fail)
    with pytest.raises(OSError, match="No space left"):  # the model takes 1,200 bytes
        write_checkpoint(tmp_path, snapshot(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "scandir"])
def test_a_checkpoint_on_a_disk_that_is_unreachable_for_a_while_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Else the run would resume from an older one, or start again."""
    assert save_all(tmp_path, [snapshot(1), snapshot(2)]) == []
    module = io if call == "open" else os
    working, faults = getattr(module, call), [errno.ESTALE, errno.EIO]

    def fail_twice(*arguments: Any, **keywords: Any) -> Any:
        if faults:
            raise OSError(faults[0], os.strerror(faults.pop()))
        return working(*arguments, **keywords)

    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, call, fail_twice)
    assert newest_checkpoint(tmp_path, pytest.fail) == tmp_path / "step-00000002"
    assert not faults


# ----------------------------------------------------------------------------------- power cuts


@dataclass
class Disk:
    """Tracks what a power cut would undo: files and names that changed since their last flush.

    It observes the system calls that change something.
    """

    unsafe: set[Path] = field(default_factory=set[Path])
    at_rename: list[tuple[str, set[str]]] = field(default_factory=list[tuple[str, set[str]]])

    def observe(self, patch: pytest.MonkeyPatch) -> None:
        open_, write, fsync, mkdir, rename = os.open, os.write, os.fsync, os.mkdir, os.rename

        def path_of(descriptor: int) -> Path:
            return Path(f"/proc/self/fd/{descriptor}").readlink()

        def see_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & os.O_CREAT and not Path(path).exists():
                self.unsafe |= {Path(path), Path(path).parent}
            return open_(path, flags, *more, **named)

        def see_write(descriptor: int, content: Any) -> int:
            self.unsafe.add(path_of(descriptor))
            return write(descriptor, content)

        def see_fsync(descriptor: int) -> None:
            fsync(descriptor)
            self.unsafe.discard(path_of(descriptor))

        def see_mkdir(path: Any, *more: Any) -> None:
            mkdir(path, *more)
            self.unsafe |= {Path(path), Path(path).parent}

        def see_rename(source: Any, target: Any) -> None:
            inside = {each.name for each in self.unsafe if Path(source) in (each, *each.parents)}
            self.at_rename.append((Path(target).name, inside))
            rename(source, target)
            self.unsafe.add(Path(target).parent)

        observers = (see_open, see_write, see_fsync, see_mkdir, see_rename)
        for observer in observers:
            patch.setattr(os, observer.__name__.removeprefix("see_"), observer)


def test_files_are_flushed_before_the_rename_and_the_rename_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    with monkeypatch.context() as patch:
        disk.observe(patch)
        for error in (None, 9.0):  # a new one, then its replacement
            path = write_checkpoint(tmp_path / "run" / "checkpoints", snapshot(1, error))
            assert disk.unsafe == set()
    aside = f".{path.name}.{os.getpid()}.old.tmp"
    assert disk.at_rename == [(path.name, set()), (aside, set()), (path.name, set())]


# ---------------------------------------------------------------------------- at each system call

FAULTS = """
import errno, json, os, sys
from pathlib import Path
from tests.support.snapshots import flip_a_bit, newest_step, save_all, snapshot
from pipeline.checkpoint import read_checkpoint, recover_checkpoints, write_checkpoint
from pipeline.system import patience

patience.PATIENCE_SECONDS = 0.0  # a fault is final
CALLS = ("mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir")
called = set()

def fail(kind, name, call, arguments):
    if kind == "killed":
        if name == "write":
            call(arguments[0], arguments[1][: len(arguments[1]) // 2])
        os._exit(9)
    number = errno.ENOSPC if kind == "full for once" else errno.EIO
    raise OSError(number, os.strerror(number))

def failing(name, kind, countdown):
    call = getattr(os, name)
    def wrapped(*arguments, **keywords):
        called.add(name)
        at, countdown[0] = countdown[0], countdown[0] - 1
        if at == 0 or (at < 0 and kind == "broken for good"):
            fail(kind, name, call, arguments)
        return call(*arguments, **keywords)
    return wrapped

def save_with_a_fault(folder, kind, k):
    # Save step 2 in a child; return whether the fault occurred, whether it died, and its warnings.
    reader, writer = os.pipe()
    if os.fork() == 0:
        countdown = [k]
        kept = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, failing(name, kind, countdown))
        warnings = save_all(folder, [snapshot(2, 7.0)], keep_last=1, keep_best=False)
        for name in CALLS:
            setattr(os, name, kept[name])
        os.write(writer, json.dumps([countdown[0] < 0, warnings, sorted(called)]).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        output = stream.read()
    status = os.wait()[1]
    if output:
        occurred, warnings, called_here = json.loads(output)
        called.update(called_here)
        return occurred, False, warnings
    assert os.waitstatus_to_exitcode(status) == 9
    return True, True, []

def before(folder, scene):
    # A complete checkpoint of step 1, and perhaps one of the step that will be saved.
    write_checkpoint(folder, snapshot(1))
    if scene != "new":
        old = write_checkpoint(folder, snapshot(2, 8.0))
        if scene == "damaged":
            flip_a_bit(old)

def resumes_at(folder):
    # What the next process finds: the step, and the error, which differs from old to new.
    recover_checkpoints(folder)
    step = newest_step(folder)
    return step, read_checkpoint(folder / f"step-{step:08d}").progress.top1_error_percent

def at_each_call(place, scene, kind):
    for k in range(1000):
        folder = place / f"{kind}-{k}"
        before(folder, scene)
        occurred, died, warnings = save_with_a_fault(folder, kind, k)
        found = resumes_at(folder)
        assert save_all(folder, [snapshot(3)], keep_last=1, keep_best=False) == [], k
        assert [path.name for path in folder.iterdir()] == ["step-00000003"], k
        assert newest_step(folder) == 3
        yield occurred, died, warnings, found
        if not occurred:
            break

kinds = ("killed", "full for once", "broken for good")
seen = {kind: list(at_each_call(Path(sys.argv[1]), sys.argv[2], kind)) for kind in kinds}
print(json.dumps([seen, sorted(called)]))
"""


@pytest.mark.process
@pytest.mark.parametrize("scene", ["new", "damaged", "other"])
def test_after_a_fault_at_any_call_the_old_or_the_new_checkpoint_is_complete(
    tmp_path: Path, scene: str
) -> None:
    seen, called = run_script(FAULTS, str(tmp_path), scene)
    assert set(called) >= {"mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"}
    old, new = [2, 8.0] if scene == "other" else [1, None], [2, 7.0]
    for entries in seen.values():
        found = [entry[3] for entry in entries]
        assert len(found) > 15
        assert all(each in (old, new) for each in found)
        assert found[0] == old
        assert found[-1] == new
        for occurred, died, warnings, resumed in entries:
            if resumed == old and not died:
                assert warnings, "a lost checkpoint is reported"
            if not occurred:
                assert warnings == []
    killed = seen["killed"]
    assert all(died for occurred, died, *_ in killed if occurred)
    newest = [entry[3] == new for entry in killed]
    assert newest == sorted(newest)  # once the new one exists, it stays
