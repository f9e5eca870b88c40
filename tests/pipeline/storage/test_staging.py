"""A node's own copy of the images: complete, verified and made once."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config.schema import Data, Synthetic
from pipeline.dataset.index import Index
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.storage import copying, staging
from pipeline.storage.files import file_faults
from pipeline.storage.staging import stage_on_each_node, stage_split
from pipeline.system import progress
from tests.support.archives import make_archives, spoil, write_archives
from tests.support.images import make_dataset, make_images
from tests.support.loading import open_split
from tests.support.staging import everything, identities, paths, staged


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "local" / "disk"


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return make_archives(tmp_path / "archives", images=60, shards=4)


# --------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("kind", ["files", "archives", "archives in parts"])
def test_a_stage_has_the_files_under_their_names(
    tmp_path: Path, stage: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "files":
        folder = make_dataset(tmp_path / "data", train=30, val=9)
    else:
        folder = make_archives(tmp_path / "data", images=60, shards=4)
    if kind == "archives in parts":
        monkeypatch.setattr(copying, "PART_BYTES", 3001)
        monkeypatch.setattr(copying, "BLOCK_BYTES", 700)
    own = open_split(folder)
    (own.train.root / "stray").write_text("a file without images")
    there = staged(folder, stage)
    name = own.train.manifest.fingerprint[:16]
    assert there.train.root == there.val.root == stage / name
    for mine, copy in zip(paths(own), paths(there), strict=True):
        assert copy.read_bytes() == mine.read_bytes()
        assert copy.stat().st_mtime_ns == mine.stat().st_mtime_ns
    assert everything(stage) == sorted(
        [f"{name}.lock", *(str(path.relative_to(stage)) for path in paths(there))]
    )
    assert file_faults(there.train) == file_faults(there.val) == []


def test_a_file_shared_by_both_halves_is_copied_once(tmp_path: Path, stage: Path) -> None:
    pictures = make_images(20, classes=3, size=(40, 32), seed=0)
    splits = {"train": {"all.bin": pictures[:13]}, "val": {"all.bin": pictures[13:]}}
    folder = write_archives(tmp_path / "data", splits)
    size = (folder / "shards" / "all.bin").stat().st_size
    assert staging.staged_bytes(open_split(folder)) == size
    there = staged(folder, stage)
    assert len(set(paths(there))) == 1
    spoil(folder / "shards" / "all.bin", int(there.val.offsets[3]))
    shutil.rmtree(stage)
    with pytest.raises(ValueError, match="do not match the index"):
        staged(folder, stage)


def test_two_datasets_share_a_stage(tmp_path: Path, stage: Path) -> None:
    folders = [make_archives(tmp_path / str(n), images=9, shards=2, seed=n) for n in range(2)]
    first, second = (staged(folder, stage) for folder in folders)
    before = identities(first)
    assert first.train.root != second.train.root
    assert identities(staged(folders[0], stage)) == before


def test_relative_paths_work(
    tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = staged(Path("archives"), Path("local"))
    assert all((tmp_path / path).is_file() for path in paths(there))
    assert identities(staged(archives, tmp_path / "local")) == identities(there)


def test_moved_images_can_be_staged(tmp_path: Path, archives: Path, stage: Path) -> None:
    """The move changed the modification times; the copies get the indexed ones."""
    moved = shutil.copytree(archives / "shards", tmp_path / "moved", copy_function=shutil.copyfile)
    shutil.rmtree(archives / "shards")
    split = Split(*(Index.open(archives, half, moved) for half in ("train", "val")))
    there = stage_split(Data(dir=archives, root=moved, stage=stage), split)
    assert file_faults(there.train) == []


def test_synthetic_images_are_not_staged(archives: Path, stage: Path) -> None:
    split = open_split(archives)
    data = Data(dir=archives, stage=stage, loader=Synthetic())
    assert stage_on_each_node(data, split, World()) is split
    assert stage_on_each_node(Data(dir=archives), split, World()) is split
    assert not stage.exists()


# ---------------------------------------------------------------------------------------- reuse


def test_existing_copies_are_used_without_the_source(archives: Path, stage: Path) -> None:
    before = identities(staged(archives, stage))
    shutil.rmtree(archives / "shards")
    there = staged(archives, stage)
    assert identities(there) == before
    paths(there)[2].unlink()
    with pytest.raises(ValueError, match=r"cannot be read to stage it \(No such file"):
        staged(archives, stage)


def test_only_missing_or_changed_files_are_copied(archives: Path, stage: Path) -> None:
    there = staged(archives, stage)
    before = identities(there)
    truncated, old = paths(there)[0], paths(there)[3]
    os.truncate(truncated, 99)
    os.utime(old, ns=(0, 10**18))
    after = identities(staged(archives, stage))
    changed = [one != other for one, other in zip(before, after, strict=True)]
    assert changed == [True, False, False, True, False]
    for mine, copy in zip(paths(open_split(archives)), paths(there), strict=True):
        assert copy.read_bytes() == mine.read_bytes()


STAGE = """
import os, sys, time
from pathlib import Path
from pipeline.config.schema import Data
from pipeline.dataset.index import Index
from pipeline.storage import copying
from pipeline.dataset.split import Split
from pipeline.storage.staging import stage_split
folder, stage, delay = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
preadv, copied = os.preadv, []
def slow(descriptor, buffers, at):
    time.sleep(delay)
    copied.append(preadv(descriptor, buffers, at))
    return copied[-1]
os.preadv, copying.FILES_AT_ONCE, copying.BLOCK_BYTES = slow, 1, 4000
split = Split(Index.open(folder, "train"), Index.open(folder, "val"))
print("ready", flush=True)
sys.stdin.readline()
there = stage_split(Data(dir=folder, stage=stage), split)
files = [i.root / name for i in (there.train, there.val) for name in i.files.to_pylist()]
print(sum(copied), *(file.stat().st_ino for file in files))
"""


def start_staging(folder: Path, stage: Path, *, delay: float) -> subprocess.Popen[str]:
    """Start a slow copier that waits for `let_go`."""
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, str(folder), str(stage), str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.process
def test_concurrent_processes_copy_once(archives: Path, stage: Path) -> None:
    processes = [start_staging(archives, stage, delay=0.02) for _ in range(2)]
    for process in processes:
        let_go(process)
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    copied, *seen = zip(*(map(int, out.split()) for out, _ in outputs), strict=True)
    assert sum(copied) == staging.staged_bytes(open_split(archives))
    there = [inode for inode, _ in identities(staged(archives, stage))]
    assert [set(inodes) for inodes in seen] == [{inode} for inode in there]


def wait_for_half(stage: Path, process: subprocess.Popen[str]) -> list[Path]:
    """Wait until one file is complete and another in progress; return the complete ones."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        whole = list(stage.glob("*/*/*.bin"))
        if whole and list(stage.glob("*.partial/*")):
            return whole
        time.sleep(0.005)
    raise AssertionError("nothing was copied")


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_copier_leaves_complete_files(
    archives: Path, stage: Path, number: signal.Signals
) -> None:
    process = start_staging(archives, stage, delay=0.05)
    let_go(process)
    wait_for_half(stage, process)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode != 0
    whole = {path: path.stat().st_ino for path in stage.glob("*/*/*.bin")}
    assert bool(list(stage.glob("*.partial"))) == (number == signal.SIGKILL)

    there = staged(archives, stage)

    assert 0 < len(whole) < len(paths(there))
    assert {path: path.stat().st_ino for path in whole} == whole
    assert not list(stage.glob("*.partial"))
    for mine, copy in zip(paths(open_split(archives)), paths(there), strict=True):
        assert copy.read_bytes() == mine.read_bytes()


# ------------------------------------------------------------------------------------- progress


def test_progress_is_printed(
    archives: Path,
    stage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "QUICK_BYTES", 0)
    staged(archives, stage)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert re.match(r"staging: [\d.]+ of [1-9][\d.]* KB, ", line)
        assert line.endswith(" left")
    assert lines[-1].endswith("0:00:00 left")
    staged(archives, stage)
    assert capsys.readouterr().err == ""
