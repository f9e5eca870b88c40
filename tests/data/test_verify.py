"""verify.py finds exactly the damage, and nothing in a sound dataset."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.index import Index, read_manifest
from tests.support.images import make_dataset
from tests.support.verifying import flip, in_file, make_archives, outcome

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_archives(tmp_path / "dataset")


@pytest.mark.parametrize("options", [(), ("--decode",)])
def test_nothing_is_found_in_a_sound_dataset(folder: Path, options: tuple[str, ...]) -> None:
    done = outcome(folder, *options)
    assert (done.code, done.faults, done.findings, done.files) == (0, set(), set(), set())
    assert done.report["fingerprint"] == read_manifest(folder).fingerprint


def test_small_datasets_are_reported_in_kilobytes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(int(Index.open(folder, split).sizes.sum()) for split in ("train", "val"))
    assert outcome(folder).code == 0
    assert f"24 images ({size / 1000:.1f} KB) read in " in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_byte_damages_only_its_image(folder: Path, seed: int) -> None:
    index = Index.open(folder, "train")
    path = folder / "a.tar"
    sample = int(np.random.default_rng(seed).choice(in_file(folder, "a.tar")))
    first, size = int(index.offsets[sample]), int(index.sizes[sample])
    sound = path.read_bytes()
    for at in (first, first + size // 2, first + size - 1):
        path.write_bytes(sound)
        flip(path, at)
        done = outcome(folder)
        assert (done.code, done.faults) == (1, {("train", sample, "changed")})
        assert done.files == set()
    for at in (first - 1, first + size):
        path.write_bytes(sound)
        flip(path, at)
        assert outcome(folder).code == 0


def test_a_fault_is_listed_with_its_place(folder: Path) -> None:
    index = Index.open(folder, "train")
    sample = in_file(folder, "b.tar")[4]
    flip(folder / "b.tar", int(index.offsets[sample]) + 100)
    (entry,) = outcome(folder).report["faults"]["changed"]
    assert entry.pop("reason")
    assert entry == {
        "split": "train",
        "sample": sample,
        "file": "b.tar",
        "offset": int(index.offsets[sample]),
        "size": int(index.sizes[sample]),
        "label": int(index.labels[sample]),
        "class": f"class{index.labels[sample]}",
    }


def test_a_missing_archive_loses_its_images(folder: Path) -> None:
    (folder / "b.tar").unlink()
    done = outcome(folder)
    assert done.faults == {("train", sample, "missing") for sample in in_file(folder, "b.tar")}
    assert done.files == {("b.tar", "missing")}


def test_a_truncated_archive_loses_its_last_images(folder: Path) -> None:
    index = Index.open(folder, "train")
    samples = in_file(folder, "a.tar")
    path = folder / "a.tar"
    was = path.stat().st_size
    end = int(index.offsets[samples[6]] + index.sizes[samples[6]])
    for size, lost in ((end, samples[7:]), (end - 1, samples[6:]), (0, samples)):
        path.write_bytes(path.read_bytes()[:size])
        done = outcome(folder)
        assert done.faults == {("train", sample, "truncated") for sample in lost}
        (file,) = done.report["files"]
        assert (file["file"], file["damage"]) == ("a.tar", "truncated")
        assert (file["indexed_size"], file["size"]) == (was, size)
        assert (file["images"], file["faulty"]) == (9, len(lost))


@pytest.mark.parametrize("change", [0, 100, -100])
def test_a_replaced_archive_loses_its_images(folder: Path, change: int) -> None:
    path = folder / "a.tar"
    size = path.stat().st_size + change
    other = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    path.write_bytes(other.tobytes())
    done = outcome(folder)
    assert done.faults == {("train", sample, "replaced") for sample in in_file(folder, "a.tar")}
    assert done.files == {("a.tar", "replaced")}


def test_a_longer_archive_is_reported(folder: Path) -> None:
    with (folder / "v.tar").open("ab") as stream:
        stream.write(b"more")
    done = outcome(folder)
    assert (done.code, done.faults, done.files) == (1, set(), {("v.tar", "longer")})


def test_a_folder_or_a_pipe_instead_of_an_archive_loses_its_images(folder: Path) -> None:
    (folder / "a.tar").unlink()
    (folder / "a.tar").mkdir()
    (folder / "b.tar").unlink()
    os.mkfifo(folder / "b.tar")
    done = outcome(folder, "--decode")
    assert {(split, sample) for split, sample, _ in done.faults} == {
        ("train", sample) for sample in range(18)
    }


def test_any_number_of_workers_distinguishes_all_kinds_of_damage(folder: Path) -> None:
    index = Index.open(folder, "train")
    in_a = in_file(folder, "a.tar")
    flip(folder / "a.tar", int(index.offsets[in_a[2]]))
    (folder / "b.tar").unlink()
    with (folder / "v.tar").open("r+b") as stream:
        stream.truncate(2000)
    done = outcome(folder, "--workers", "1")
    assert {kind for *_, kind in done.faults} == {"changed", "missing", "truncated"}
    assert {damage for _, damage in done.files} == {"missing", "truncated"}
    assert outcome(folder, "--decode", "--workers", "5").report["faults"] == done.report["faults"]


def test_moved_images_are_found_under_another_root(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.tar", "b.tar", "v.tar"):
        (folder / name).rename(tmp_path / "elsewhere" / name)
    assert len(outcome(folder).faults) == 24
    assert outcome(folder, "--root", tmp_path / "elsewhere").code == 0


def test_copied_or_touched_archives_are_sound(folder: Path) -> None:
    (folder / "copy").write_bytes((folder / "a.tar").read_bytes())
    (folder / "copy").replace(folder / "a.tar")
    os.utime(folder / "b.tar", (0, 0))
    assert outcome(folder).code == 0


def test_files_of_one_image_are_judged_by_their_image(tmp_path: Path) -> None:
    index = Index.open(make_dataset(tmp_path, train=8, val=2), "train")
    paths = [index.path(sample) for sample in range(5)]
    paths[0].unlink()
    os.truncate(paths[1], 50)
    flip(paths[2], 50)
    paths[3].write_bytes(bytes(5000))
    with paths[4].open("ab") as stream:
        stream.write(b"more")
    done = outcome(tmp_path)
    assert done.faults == {
        ("train", 0, "missing"),
        ("train", 1, "truncated"),
        ("train", 2, "changed"),
        ("train", 3, "changed"),
    }
    assert done.files == {(f"train/{paths[4].name}", "longer")}
