"""verify.py --exclude, and verify.py as a program."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import verify
from pipeline.dataset.index import Index, read_manifest
from pipeline.storage.files import file_faults
from tests.support.loading import dali, evaluated, joined, trained
from tests.support.preparing import ROOT
from tests.support.verifying import (
    flip,
    in_file,
    make_archives,
    outcome,
    packed,
    pictures,
    verified,
    with_odd,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_archives(tmp_path / "dataset")


def damage(folder: Path) -> None:
    index = Index.open(folder, "train")
    flip(folder / "a.tar", int(index.offsets[in_file(folder, "a.tar")[3]]))
    with (folder / "b.tar").open("r+b") as stream:
        stream.truncate(int(index.offsets[in_file(folder, "b.tar")[6]]))
    with (folder / "v.tar").open("ab") as stream:
        stream.write(b"more")


def test_the_dataset_without_faulty_images_is_sound_and_trains(
    folder: Path, tmp_path: Path
) -> None:
    before = {split: Index.open(folder, split) for split in ("train", "val")}
    damage(folder)
    faults = outcome(folder, "--exclude", tmp_path / "out").faults
    assert len(faults) == 4
    done = outcome(tmp_path / "out", "--decode")
    assert (done.code, done.files) == (0, set())
    for split, old in before.items():
        new = Index.open(tmp_path / "out", split)
        kept = [n for n in range(len(old)) if not any(f[:2] == (split, n) for f in faults)]
        assert np.array_equal(new.digests, old.digests[kept])
        assert np.array_equal(new.labels, old.labels[kept])
        assert file_faults(new) == []
    images = joined(trained(dali(tmp_path / "out"), 1, 3)).images
    assert len(images) == 36
    assert len(joined(evaluated(dali(tmp_path / "out"))).labels) == 6


def test_the_new_dataset_records_its_origin(folder: Path, tmp_path: Path) -> None:
    damage(folder)
    verified(folder, "--exclude", tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.request["dataset"] == str(folder)
    assert manifest.request["fingerprint"] == read_manifest(folder).fingerprint
    assert manifest.request["left_out"] == {"train": 4, "val": 0}
    assert manifest.classes == read_manifest(folder).classes


def test_findings_are_left_out_on_request(tmp_path: Path) -> None:
    at = with_odd(tmp_path / "in")
    index = Index.open(tmp_path / "in", "train")
    verified(tmp_path / "in", "--decode", "--exclude", tmp_path / "one")
    options = ("--exclude-also", "cmyk,small", "--exclude", tmp_path / "two")
    verified(tmp_path / "in", "--decode", *options)
    left = {
        name: {d.tobytes() for d in Index.open(tmp_path / name, "train").digests}
        for name in ("one", "two")
    }
    assert left["one"] - left["two"] == {
        index.digests[at[name]].tobytes() for name in ("cmyk", "small")
    }
    assert outcome(tmp_path / "two", "--decode").code == 0


def test_nothing_is_left_out_of_a_sound_dataset(folder: Path, tmp_path: Path) -> None:
    assert verified(folder, "--exclude", tmp_path / "out") == 0
    assert read_manifest(tmp_path / "out").fingerprint == read_manifest(folder).fingerprint


def test_no_class_may_lose_all_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [p for p in pictures(9, 1) if p.label != 1]
    one = [p for p in pictures(9, 1) if p.label == 1]
    packed(tmp_path / "in", {"a.tar": two, "b.tar": one, "v.tar": pictures(6, 3)})
    (tmp_path / "in/b.tar").unlink()
    assert verified(tmp_path / "in", "--exclude", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "no training image would be left of class1 (1 of 3 classes)" in told
    assert not (tmp_path / "out").exists()


MISTAKES: dict[str, Callable[[Path, Path], list[object]]] = {
    "no dataset at": lambda folder, tmp: [tmp / "none"],
    "is the dataset itself": lambda folder, tmp: [folder, "--exclude", folder],
    "is not a folder": lambda folder, tmp: [folder, "--exclude", folder / "a.tar"],
    "needs --exclude OUT": lambda folder, tmp: [folder, "--exclude-also", "cmyk", "--decode"],
    "--decode to find": lambda folder, tmp: [
        folder,
        "--exclude-also",
        "cmyk",
        "--exclude",
        tmp / "out",
    ],
    "cannot be written": lambda folder, tmp: [folder, "--report", tmp / "none/report.json"],
}


@pytest.mark.parametrize("part", MISTAKES)
def test_mistakes_are_reported_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    arguments = MISTAKES[part](folder, tmp_path)
    assert verify.main([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert part in told.err
    assert told.err.startswith("verify.py: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not (tmp_path / "out").exists()


def test_an_unknown_finding_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        verified(folder, "--exclude-also", "cmyk,blue")
    assert caught.value.code == 2
    assert "not-jpeg, cmyk, colours, large, small, elongated" in capsys.readouterr().err


@pytest.mark.process
def test_the_program_prints_its_findings(folder: Path) -> None:
    (folder / "b.tar").unlink()
    command = [sys.executable, ROOT / "data/verify.py", folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert f"{folder}/b.tar: missing; 9 of 9 images lost" in done.stdout
    assert "9 faulty images and 1 damaged archive;" in done.stdout
