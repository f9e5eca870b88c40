"""Preparing, stopped in every way: the next run continues, and no processes remain."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from data.formats import devkit
from data.indexing.journal import JOURNAL, Journal
from data.indexing.reading import FEW_BYTES
from data.sources.imagenet import ClassTar
from tests.support.images import make_images
from tests.support.official import md5, tar, write_devkit, write_train_archive, write_val_archive
from tests.support.packings import OFFICIAL
from tests.support.preparing import INDEX_FILES, ROOT, run

pytestmark = pytest.mark.process

SECONDS = 60
PROGRAM = """
import os, sys, time
sys.path.insert(0, {root!r})
from data import prepare
from data.formats import devkit
from data.sources.imagenet import ClassTar

devkit.MD5 = {md5!r}

def read(tar, read=ClassTar.read):
    with open({log!r}, "a") as log:
        log.write(tar.wnid + "\\n")
    while tar.wnid in os.environ.get("STUCK", ""):
        time.sleep(0.01)
    return read(tar)

ClassTar.read = read
if __name__ == "__main__":
    sys.exit(prepare.main())
"""
KINDS = ("train", "val", "devkit")
WNIDS = [f"n{number:08d}" for number in range(6)]
STUCK = WNIDS[2:4]
"""Classes whose reading never ends in `half_way`."""
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of 40 MB in six classes, the larger ones first."""
    folder = tmp_path_factory.mktemp("archives")
    jpegs = [picture.content for picture in make_images(12, classes=6, size=(16, 12), seed=0)]
    images = {
        wnid: {f"{wnid}_{n}.JPEG": jpeg + os.urandom((9 - k) * MEGABYTE // 2) for n, jpeg in pair}
        for k, wnid in enumerate(WNIDS)
        for pair in [enumerate(jpegs[2 * k : 2 * k + 2])]
    }
    train, val, kit = (folder / name for name in OFFICIAL)
    write_train_archive(train, images)
    write_val_archive(val, jpegs[:3])
    write_devkit(kit, wnids=WNIDS, words=WNIDS, validation_wnids=WNIDS[:3])
    assert train.stat().st_size > FEW_BYTES
    return folder


@dataclass(frozen=True)
class Preparation:
    """prepare.py on the archives, as a process that logs the classes it reads."""

    archives: Path
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, *, workers: int, stuck: Sequence[str] = ()) -> subprocess.Popen[str]:
        program, log = self.folder / "program.py", self.folder / "log"
        log.write_text("")
        program.write_text(
            PROGRAM.format(root=str(ROOT), log=str(log), md5=md5(self.archives / OFFICIAL[2]))
        )
        options = [
            f"--{kind}={self.archives / name}" for kind, name in zip(KINDS, OFFICIAL, strict=True)
        ]
        options += ["--partial", f"--out={self.out}", f"--workers={workers}"]
        return subprocess.Popen(
            [sys.executable, program, "imagenet", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"STUCK": " ".join(stuck)},
            start_new_session=True,  # Ctrl-C on a terminal goes to a whole group of processes
        )

    def log(self) -> list[str]:
        return (self.folder / "log").read_text().split()

    def records(self) -> int:
        """The number of units in the journal, which a process may have open."""
        try:
            content = (self.out / JOURNAL).read_bytes()
        except FileNotFoundError:
            return 0
        at, count = len(Journal.BEGINNING), 0
        while at + Journal.HEADER.size <= len(content):
            at += Journal.HEADER.size + Journal.HEADER.unpack_from(content, at)[2]
            count += at <= len(content)
        return count

    def finish(self, *, workers: int) -> list[str]:
        """Prepare to the end; return the classes that were read."""
        process = self.start(workers=workers)
        _, said = process.communicate(timeout=SECONDS)
        assert (process.returncode, said) == (0, "")
        assert {path.name for path in self.out.iterdir()} == INDEX_FILES
        return sorted(self.log())


@pytest.fixture(scope="module")
def whole(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The index of an undisturbed preparation."""
    preparation = Preparation(archives, tmp_path_factory.mktemp("whole"))
    assert preparation.finish(workers=1) == WNIDS
    return {path.name: path.read_bytes() for path in preparation.out.iterdir()}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=SECONDS)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def half_way(preparation: Preparation) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A preparation in which two processes have read two classes and are reading two more."""
    process = preparation.start(workers=2, stuck=STUCK)
    started = {*WNIDS[:2], *STUCK}
    wait_until(lambda: preparation.records() == 2 and set(preparation.log()) == started, process)
    return process, psutil.Process(process.pid).children(recursive=True)


def workers_of(children: list[psutil.Process]) -> list[psutil.Process]:
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def blocks_interrupts(process: psutil.Process) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked, 16) & 1 << (signal.SIGINT - 1))


def assert_continues(preparation: Preparation, whole: dict[str, bytes], *, workers: int) -> None:
    assert preparation.records() == 2
    assert preparation.finish(workers=workers) == WNIDS[2:]
    assert {path.name: path.read_bytes() for path in preparation.out.iterdir()} == whole


def test_a_killed_preparation_is_continued(
    archives: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    preparation = Preparation(archives, tmp_path)
    process, children = half_way(preparation)
    process.kill()
    process.communicate()
    assert len(children) >= 2
    assert_gone(children)
    assert [path.name for path in preparation.out.iterdir()] == [JOURNAL]
    with (preparation.out / JOURNAL).open("ab") as journal:
        journal.write(bytes(range(100)))
    assert_continues(preparation, whole, workers=2)


def test_ctrl_c_stops_at_once_with_one_message(
    archives: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    preparation = Preparation(archives, tmp_path)
    process, children = half_way(preparation)
    assert [blocks_interrupts(worker) for worker in workers_of(children)] == [True, True]
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert said == "\nprepare.py: interrupted; run the same command again to continue\n"
    assert_gone(children)
    assert_continues(preparation, whole, workers=1)


def test_a_killed_worker_is_reported(archives: Path, tmp_path: Path) -> None:
    preparation = Preparation(archives, tmp_path)
    process, children = half_way(preparation)
    workers_of(children)[0].kill()
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "one of 2 reading processes was killed" in said
    assert "--workers 1" in said
    assert_gone(children)
    assert preparation.records() == 2


def test_a_mistake_in_large_data_keeps_what_was_read(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val, kit = (archives / name for name in OFFICIAL)
    monkeypatch.setattr(devkit, "MD5", md5(kit))
    wrong = archives / "wrong.tar"
    wrong.write_bytes(tar({"ILSVRC2012_val_00000001.JPEG": b"", "strange": b""}))
    command: list[object] = ["imagenet", "--train", train, "--devkit", kit, "--partial"]
    command += ["--workers", 1, "--out", tmp_path / "out", "--val"]
    assert run(*command, wrong) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [JOURNAL]
    assert Preparation(archives, tmp_path).records() == len(WNIDS)
    monkeypatch.setattr(ClassTar, "read", None)
    assert run(*command, val) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == INDEX_FILES


def test_ctrl_c_while_workers_start(archives: Path, tmp_path: Path) -> None:
    preparation = Preparation(archives, tmp_path)
    process = preparation.start(workers=2, stuck=STUCK)
    parent = psutil.Process(process.pid)
    wait_until(lambda: len(parent.children()) >= 2, process)
    children = parent.children()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said.count("\n")) == (130, 2), said
    assert_gone(children)
    assert preparation.log() == []
