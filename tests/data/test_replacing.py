"""A dataset is replaced by another one only with --replace, whatever writes it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset.index import MANIFEST, Index, read_manifest
from pipeline.dataset.writing import Dataset, write_dataset
from tests.support.images import make_dataset
from tests.support.packings import PACKINGS, Pictures, make_pictures
from tests.support.parquet_files import SNAPPY, write_both
from tests.support.preparing import contents, folder, make_source, picture, run, save
from tests.support.verifying import verified

Command = list[object]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures(20, 8)


def snapshot(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def compressed(source: Path) -> Command:
    write_both(source, SNAPPY)
    return ["parquet", "--train", source / "train-*", "--val", source / "val-*"]


def other_shards(source: Path) -> Command:
    return ["shards", make_dataset(source, train=8, val=2)]


OTHERS: dict[str, Callable[[Path], Command]] = {
    "folders": lambda source: ["imagefolder", make_source(source)],
    "digits": lambda source: ["digits"],
    "copied Parquet": compressed,
    "shards": other_shards,
}


def first_dataset(name: str, source: Path, pictures: Pictures) -> Command:
    return OTHERS[name](source) if name in OTHERS else PACKINGS[name](source, pictures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Kaggle", "shards with both", "digits", "copied Parquet"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_dataset_is_refused_before_anything_changes(
    name: str,
    other: str,
    pictures: Pictures,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run(*first_dataset(name, tmp_path / "source", pictures), "--out", out) == 0
    before, fingerprint = snapshot(out), read_manifest(out).fingerprint
    command = [*OTHERS[other](tmp_path / "other"), "--out", out]
    if name == other == "digits":
        return
    capsys.readouterr()
    assert run(*command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{out} has another dataset (" in said or f"{out} contains" in said
    assert snapshot(out) == before
    if other != "shards":
        assert run(*command, "--replace") == run(*command) == 0
        assert (read_manifest(out).fingerprint == fingerprint) == (name == other)


def test_the_message_names_the_dataset_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_source(tmp_path / "pets"), tmp_path / "out"
    assert folder(source, out) == 0
    fingerprint = read_manifest(out).fingerprint[:12]
    assert folder(make_source(tmp_path / "cars"), out) == 2
    assert capsys.readouterr().err == (
        f"prepare.py: {out} has another dataset (pets: 4 train + 2 val images, fingerprint"
        f" {fingerprint}); choose another folder, or replace it with --replace\n"
    )


def test_the_same_command_follows_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_source(tmp_path / "pets"), tmp_path / "out"
    assert folder(source, out) == 0
    save(source / "train/cat/more.jpg", picture(77))
    assert folder(source, out) == 0
    assert "(changed)" in capsys.readouterr().out


def test_another_part_of_the_same_source_is_another_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, out = make_source(tmp_path / "pets"), tmp_path / "out"
    for number in range(10):
        save(tree / f"train/cat/more{number}.jpg", picture(77 + number))
    for fraction, options, code in ((0.2, [], 0), (0.4, [], 2), (0.4, ["--replace"], 0)):
        command = ["imagefolder", tree / "train", "--val-fraction", fraction, "--out", out]
        assert run(*command, *options, "--partial") == code
    assert "has another dataset (pets: " in capsys.readouterr().err


def test_replace_prepares_a_complete_dataset_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_source(tmp_path / "pets"), tmp_path / "out"
    assert folder(source, out) == folder(source, out, "--replace") == 0
    said = capsys.readouterr().out
    assert "nothing to do" not in said
    assert "(as before)" in said


def test_a_damaged_index_of_another_dataset_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert folder(make_source(tmp_path / "pets"), out) == 0
    (out / "train.arrow").write_bytes(b"damaged")
    assert folder(make_source(tmp_path / "cars"), out) == 2
    assert (out / "train.arrow").read_bytes() == b"damaged"


def test_a_foreign_manifest_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "app"
    out.mkdir()
    (out / MANIFEST).write_text('{"name": "a web page", "icons": []}')
    for options in ([], ["--replace"]):
        assert folder(make_source(tmp_path / "pets"), out, *options) == 2
        assert f"{out / MANIFEST} is not the manifest of a dataset" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [MANIFEST]


def test_shards_replace_other_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = make_dataset(tmp_path / "source", train=8, val=2), tmp_path / "out"
    assert run("shards", source, "--out", out, "--workers", 1) == 0
    again = ["shards", source, "--out", out, "--workers", 1, "--quality", 30]
    assert run(*again) == 2
    assert "or replace them with --replace" in capsys.readouterr().err
    assert run(*again, "--replace") == 0
    fingerprint = read_manifest(out).fingerprint
    assert fingerprint != read_manifest(source).fingerprint
    derived = tmp_path / "derived"
    assert verified(out, "--exclude", derived) == 0
    assert run("shards", derived, "--out", out, "--workers", 1, "--replace") == 2
    assert f"--out {out} has the images of {derived}" in capsys.readouterr().err
    assert len(contents_of(derived)) == 8


def test_shards_replace_nothing_beside_other_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_dataset(tmp_path / "source", train=8, val=2)
    out = make_dataset(tmp_path / "out", train=9, val=2, seed=5)
    before = snapshot(out)
    assert run("shards", source, "--out", out, "--workers", 1, "--replace") == 2
    assert f"--out {out} contains images; choose an empty folder" in capsys.readouterr().err
    assert snapshot(out) == before


def contents_of(out: Path) -> list[bytes]:
    index = Index.open(out, "train")
    return [
        index.path(i).read_bytes()[index.offsets[i] : index.offsets[i] + index.sizes[i]]
        for i in range(len(index))
    ]


def test_verify_excludes_into_no_other_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_dataset(tmp_path / "one", train=8, val=2)
    two = make_dataset(tmp_path / "two", train=9, val=2, seed=5)
    before = snapshot(two)
    assert verified(one, "--exclude", two) == 2
    assert f"{two} has another dataset (test: 9 train + 2 val images" in capsys.readouterr().err
    assert snapshot(two) == before
    assert verified(one, "--exclude", tmp_path / "out") == 0
    assert verified(one, "--exclude", tmp_path / "out") == 0
    assert verified(one, "--exclude", two, "--replace") == 0
    assert read_manifest(two).fingerprint == read_manifest(one).fingerprint


def test_writing_refuses_another_dataset(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one", train=8, val=2)
    index = Index.open(tmp_path / "one", "train")
    before = snapshot(tmp_path / "one")
    nothing = Dataset("none", index.manifest.classes, ".", {})
    with pytest.raises(ValueError, match="has another dataset"):
        write_dataset(tmp_path / "one", nothing, replace=False)
    assert snapshot(tmp_path / "one") == before
    assert contents(index)
