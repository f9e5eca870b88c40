"""What cannot be staged, and why; no partial file is left behind."""

import errno
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from pipeline.storage import copying
from tests.support.archives import make_archives, spoil, write_archives
from tests.support.images import make_images
from tests.support.loading import open_split
from tests.support.staging import everything, paths, staged


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "local" / "disk"


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return make_archives(tmp_path / "archives", images=60, shards=4)


@pytest.mark.parametrize("part_bytes", [copying.PART_BYTES, 3001])
def test_an_archive_with_other_content_is_not_staged(
    archives: Path, stage: Path, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PART_BYTES", part_bytes)
    split = open_split(archives)
    sample = 11
    spoil(split.train.path(sample), int(split.train.offsets[sample]))
    with pytest.raises(ValueError) as caught:
        staged(archives, stage)
    place = f"at offset {split.train.offsets[sample]} ({split.train.sizes[sample]} bytes)"
    assert f"{split.train.path(sample)} {place}: its bytes do not match the index" in str(
        caught.value
    )
    assert "train without data.stage" in str(caught.value)
    name = split.train.files[int(split.train.file_ids[sample])].as_py()
    assert not list(stage.glob(f"*/{name}"))
    assert not list(stage.glob("*.partial"))


def test_an_archive_of_another_size_is_not_staged(archives: Path, stage: Path) -> None:
    path = open_split(archives).val.path(0)
    size = path.stat().st_size
    os.truncate(path, 99)
    with pytest.raises(ValueError, match=f"has 99 bytes, but had {size:,} when it was indexed"):
        staged(archives, stage)


def test_a_stage_inside_the_dataset_is_refused(archives: Path) -> None:
    root = archives / "shards"
    for inside in (root, root / "deep" / "er"):
        with pytest.raises(ValueError, match="is inside the dataset's own folder"):
            staged(archives, inside)
    assert not (root / "deep").exists()


def test_a_stage_that_is_not_a_folder_is_refused(archives: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", Path("/proc/stage")):
        with pytest.raises(ValueError, match=f"data.stage={wrong} cannot be used"):
            staged(archives, wrong)


def test_a_disk_that_cannot_be_written_is_reported(
    archives: Path, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(ValueError, match=r"cannot be used \(Input/output error\)"):
        staged(archives, stage)
    assert everything(stage) == [f"{open_split(archives).train.manifest.fingerprint[:16]}.lock"]


def test_names_that_point_outside_the_root_are_not_staged(tmp_path: Path, stage: Path) -> None:
    pictures = make_images(9, classes=3, size=(40, 32), seed=0)
    splits = {"train": {"../beside.bin": pictures}, "val": {"val.bin": pictures}}
    folder = write_archives(tmp_path / "data", splits)
    with pytest.raises(ValueError, match=r"\.\./beside\.bin is outside the dataset's root"):
        staged(folder, stage)
    assert not (stage / "beside.bin").exists()


# -------------------------------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path, None, None]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_reported_before_copying(
    archives: Path, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(archives)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=40_000))
    with pytest.raises(ValueError) as caught:
        staged(archives, stage)
    said = str(caught.value)
    assert said.startswith(f"stage {stage} has 40.0 KB free, but {archives} needs ")
    assert "choose another data.stage, or train without" in said
    assert len(everything(stage)) == 1


@pytest.mark.process
def test_a_full_disk_keeps_complete_files(
    archives: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"has [\d.]+ KB free, but .* needs [\d.]+ KB more"):
        staged(archives, small_disk)
    assert len(everything(small_disk)) == 1
    usage = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=10**9))
        patch.setattr(copying, "FILES_AT_ONCE", 1)
        with pytest.raises(ValueError, match=r"is full \(No space left on device\)"):
            staged(archives, small_disk)
    whole = {path: path.stat().st_ino for path in small_disk.glob("*/*/*.bin")}
    assert whole
    assert not list(small_disk.glob("*.partial"))
    with pytest.raises(ValueError, match=r"has [\d.]+ KB free, but .* needs [\d.]+ KB more"):
        staged(archives, small_disk)
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    there = staged(archives, small_disk)
    assert len(whole) < len(paths(there))
    assert {path: path.stat().st_ino for path in whole} == whole
