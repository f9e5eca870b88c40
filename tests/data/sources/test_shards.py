"""WebDataset shards: others read them, we train from them, and their bytes never change."""

import os
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.formats.tar import walk
from data.sources.shards.shard import shard_bytes, stored_order
from pipeline.dataset.index import Index, read_manifest
from tests.support.images import Picture, encode, make_dataset, write_pictures
from tests.support.loading import assert_equal, dali, evaluated, trained
from tests.support.preparing import ROOT
from tests.support.sharding import IMAGES_A_SHARD, contents, stored, tars, write

TRAIN, VAL, CLASSES = 30, 11, 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("source"), train=TRAIN, val=VAL, classes=CLASSES)


@pytest.fixture(scope="module")
def written(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    assert write(source, out) == 0
    return out


def in_order(folder: Path, split: str) -> list[tuple[int, bytes]]:
    """Label and bytes of each sample, in the order of the shards."""
    pairs = stored(folder, split)
    return [pairs[sample] for sample in stored_order(len(pairs), 0, len(pairs))]


def webdataset_samples(paths: list[Path]) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own defaults
        import webdataset

        yield from webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)


def test_webdataset_reads_every_key_label_and_byte(source: Path, written: Path) -> None:
    for split, count in {"train": TRAIN, "val": VAL}.items():
        samples = list(webdataset_samples(tars(written, split)))
        assert [sample["__key__"] for sample in samples] == [f"{n:09d}" for n in range(count)]
        read = [(int(sample["cls"]), sample["jpg"]) for sample in samples]
        assert read == in_order(source, split)


def test_dali_reads_every_label_and_byte(source: Path, written: Path) -> None:
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=TRAIN, num_threads=1, device_id=None)
    def reading() -> Any:
        paths = [str(path) for path in tars(written, "train")]
        return tuple(fn.readers.webdataset(paths=paths, ext=["jpg;png", "cls"]))

    images, labels = reading().run()
    read = [
        (int(np.array(label).tobytes()), np.array(image).tobytes())
        for image, label in zip(images, labels, strict=True)
    ]
    assert read == in_order(source, "train")


def test_verbatim_shards_are_the_same_dataset(source: Path, written: Path) -> None:
    before, after = read_manifest(source), read_manifest(written)
    assert after.fingerprint == before.fingerprint
    assert (after.classes, after.class_names) == (before.classes, before.class_names)
    for split in ("train", "val"):
        assert stored(written, split) == stored(source, split)


def test_verbatim_shards_give_the_same_batches(source: Path, written: Path) -> None:
    assert_equal(trained(dali(written), 1, 4), trained(dali(source), 1, 4))
    assert_equal(evaluated(dali(written)), evaluated(dali(source)))


def test_a_part_of_a_shard_has_many_classes(tmp_path: Path) -> None:
    count, classes = 4000, 10
    labels = np.arange(count) * classes // count  # an index is sorted by label
    shard = labels[stored_order(count, 512, 1024)]
    assert np.bincount(shard, minlength=classes).min() > 512 / classes / 2


def test_shards_have_no_owners_and_no_times(written: Path) -> None:
    for path in tars(written):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.isreg()
                assert (member.mtime, member.mode) == (0, 0o644)
                assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
                assert not member.pax_headers
        assert len(list(walk(path))) % 2 == 0


def test_the_size_of_a_shard_is_known_beforehand(source: Path, written: Path) -> None:
    sizes = Index.open(source, "train").sizes
    for number, path in enumerate(tars(written, "train")):
        first = number * IMAGES_A_SHARD
        samples = stored_order(TRAIN, first, first + IMAGES_A_SHARD)
        assert path.stat().st_size == shard_bytes(sizes[samples])


def test_images_are_named_by_their_content(tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}
    pictures = [
        Picture(f"{ending}.JPEG", encode(pixels, kind), (8, 8)) for ending, kind in kinds.items()
    ]
    source = write_pictures(tmp_path / "source", {"train": pictures})
    assert write(source, tmp_path / "out") == 0
    (shard,) = tars(tmp_path / "out")
    found = {
        member.name.partition(".")[2]: bytes(content)
        for member, content in walk(shard)
        if not member.name.endswith(".cls")
    }
    assert found == {picture.name.removesuffix(".JPEG"): picture.content for picture in pictures}


PROGRAM = """
import sys
from data import prepare
from data.indexing import reading
reading.FEW_BYTES = -1  # so that few bytes are journaled and read by several processes, too
if __name__ == "__main__":
    sys.exit(prepare.main(sys.argv[1:]))
"""


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    options = ["--shard-images", str(IMAGES_A_SHARD), "--workers", str(workers)]
    command = [sys.executable, "-c", PROGRAM, "shards", source, "--out", out, *options]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_is_continued(written: Path, tmp_path: Path, workers: int) -> None:
    source = make_dataset(tmp_path / "source", train=TRAIN, val=VAL, classes=CLASSES)
    index = Index.open(source, "train")
    stuck = index.path(int(stored_order(TRAIN, 0, TRAIN)[2 * IMAGES_A_SHARD + 3]))
    stuck.rename(tmp_path / "kept")
    os.mkfifo(stuck)  # reading it waits forever
    out = tmp_path / "out"
    process = start(source, out, workers)
    first, second, third = (out / f"shards/train-00000{number}.tar" for number in range(3))
    wait_for(second)
    temporary = third.with_name(f".{third.name}.{process.pid}.tmp")
    if workers == 1:
        wait_for(temporary)
    else:
        wait_for(out / "shards/val-000001.tar")  # the other process writes the rest
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not third.exists()
    assert not (out / "manifest.json").exists()
    before = first.stat()

    stuck.unlink()
    (tmp_path / "kept").rename(stuck)
    assert start(source, out, 1).wait() == 0
    assert contents(out) == contents(written)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert read_manifest(out).fingerprint == read_manifest(written).fingerprint


def test_writing_complete_shards_again_does_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def states() -> dict[Path, tuple[int, int]]:
        return {path: (s.st_ino, s.st_mtime_ns) for path in out.rglob("*") for s in [path.stat()]}

    out = tmp_path / "out"
    assert write(source, out) == 0
    before = states()
    assert write(source, out) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert states() == before


def test_a_lost_shard_is_written_again(source: Path, written: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write(source, out) == 0
    tars(out)[1].unlink()
    assert write(source, out) == 0
    assert contents(out) == contents(written)


def test_the_images_may_have_been_moved(source: Path, written: Path, tmp_path: Path) -> None:
    moved = make_dataset(tmp_path / "source", train=TRAIN, val=VAL, classes=CLASSES)
    (moved / "images").rename(tmp_path / "elsewhere")
    assert write(moved, tmp_path / "out", "--root", tmp_path / "elsewhere") == 0
    assert contents(tmp_path / "out") == contents(written)
