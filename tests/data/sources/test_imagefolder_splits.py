"""Class folders whose validation images are elsewhere, have another name, or are held out."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.indexing.paths import root_for
from data.sources.imagefolder import two_trees
from pipeline.dataset.index import Index, read_manifest
from tests.support.preparing import contents, folder, make_source, picture, run, save


def make_tree(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A tree of class folders with so many images each."""
    for name, count in counts.items():
        for number in range(count):
            seed += 1
            save(root / name / f"{number}.png", picture(seed, (6, 5)), "PNG")
    return root


def prepare(out: Path, *options: object) -> int:
    return run("imagefolder", *options, "--out", out, "--workers", 1)


def names(out: Path, split: str) -> set[str]:
    index = Index.open(out, split)
    return {str(index.path(i).resolve()) for i in range(len(index))}


def test_a_fraction_of_each_class_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "pets", {"cat": 20, "dog": 10, "owl": 3})
    assert prepare(tmp_path / "out", tree, "--val-fraction", 0.1) == 0
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.name, manifest.classes) == ("pets", ("cat", "dog", "owl"))
    assert np.bincount(Index.open(tmp_path / "out", "val").labels).tolist() == [2, 1, 1]
    every = names(tmp_path / "out", "train") | names(tmp_path / "out", "val")
    assert every == {str(path.resolve()) for path in tree.rglob("*.png")}
    assert "unequal" not in capsys.readouterr().out
    assert prepare(tmp_path / "out", tree, "--val-fraction", 0.1) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_copies_stay_together_and_new_images_move_few(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "pets", {"cat": 30, "dog": 30})
    command = ["--train", tree, "--val-fraction", 0.2]
    assert prepare(tmp_path / "out", *command) == 0
    before = names(tmp_path / "out", "val")
    for path in sorted(tree.rglob("*.png")):
        shutil.copy(path, path.with_name(f"{path.stem}-copy.png"))
    assert prepare(tmp_path / "out", *command) == 0
    copied = names(tmp_path / "out", "val")
    assert copied == before | {name.replace(".png", "-copy.png") for name in before}
    save(tree / "cat/new.png", picture(999, (6, 5)), "PNG")
    assert prepare(tmp_path / "out", *command) == 0
    moved = names(tmp_path / "out", "val") ^ copied
    assert len(moved) <= 3  # the new image, and one other with its copy


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "VALIDATION"])
def test_other_names_of_validation_are_understood(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path / "source")
    assert folder(source, tmp_path / "a") == 0
    (source / "val").rename(source / name)
    (source / "train").rename(source / "training")
    (source / "test/ant").mkdir(parents=True)
    assert folder(source, tmp_path / "b") == 0
    said = capsys.readouterr().out
    assert f"note: training/ is train, {name}/ is val\n" in said
    assert "note: folders not used: test\n" in said
    prints = {read_manifest(tmp_path / out).fingerprint for out in "ab"}
    assert len(prints) == 1


def test_two_trees_may_be_anywhere(tmp_path: Path) -> None:
    train = make_tree(tmp_path / "x/photos", {"cat": 3, "dog": 2})
    val = make_tree(tmp_path / "y/z/others", {"dog": 2}, seed=99)
    assert prepare(tmp_path / "out", "--train", train, "--val", val) == 0
    assert names(tmp_path / "out", "train") == {str(path) for path in train.rglob("*.png")}
    assert names(tmp_path / "out", "val") == {str(path) for path in val.rglob("*.png")}
    assert Index.open(tmp_path / "out", "val").labels.tolist() == [1, 1]


def test_two_trees_without_a_common_folder_are_called_after_the_first(tmp_path: Path) -> None:
    tree = two_trees(make_tree(tmp_path / "photos", {"cat": 1}), Path("/usr"))
    assert (tree.name, root_for(tree.root, tmp_path / "out")) == ("photos", "/")


def test_a_folder_with_train_alone_is_divided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path / "pets/train", {"cat": 4, "dog": 4})
    assert prepare(tmp_path / "a", tmp_path / "pets", "--val-fraction", 0.5) == 0
    assert "note: train/ was divided" in capsys.readouterr().out
    assert prepare(tmp_path / "b", tmp_path / "pets/train", "--val-fraction", 0.5) == 0
    one, other = (read_manifest(tmp_path / out) for out in "ab")
    assert one.fingerprint == other.fingerprint
    assert one.name == other.name == "pets"
    assert contents(Index.open(tmp_path / "a", "val")) == contents(
        Index.open(tmp_path / "b", "val")
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "vehicles", {"bus": 2, "train": 2})
    assert prepare(tmp_path / "out", tree, "--val-fraction", 0.5) == 0
    assert read_manifest(tmp_path / "out").classes == ("bus", "train")


def test_what_is_odd_about_classes_and_images_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = make_tree(tmp_path / "train", {"cat": 20, "dog": 2, "owl": 1})
    val = make_tree(tmp_path / "val", {"cat": 2}, seed=400)
    (val / "dog").mkdir()
    shutil.copy(train / "owl/0.png", val / "dog/same.png")
    shutil.copy(train / "cat/7.png", val / "cat/same.png")
    shutil.copy(train / "cat/7.png", train / "cat/copy.png")
    assert prepare(tmp_path / "out", "--train", train, "--val", val) == 0
    said = capsys.readouterr().out
    few = "1 training image of owl, but 21 of cat"
    assert f"note: the classes are very unequal: {few}\n" in said
    assert "note: 1 class has no validation image: owl\n" in said
    assert "note: 2 images are in both train and val: " in said
    assert "train/owl/0.png = val/dog/same.png" in said
    assert " = val/cat/same.png" in said


def test_what_is_skipped_flattened_or_followed_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_source(tmp_path / "source")
    save(tmp_path / "elsewhere/7.jpg", picture(7))
    (source / "train/dog").symlink_to(tmp_path / "elsewhere")
    (source / "train/cat/link.jpg").symlink_to(source / "train/cat/4.jpg")
    (source / "train/ant/again").symlink_to(source / "train/ant")
    (source / "train/notes.txt").touch()
    assert folder(source, tmp_path / "out") == 0
    said = capsys.readouterr().out
    ignored = "train/notes.txt, train/ant/readme.txt"
    assert f"note: 2 files ignored, not named like images: {ignored}\n" in said
    below = "in subfolders of a class folder, counted as that class"
    assert f"note: 1 image {below}: train/ant/deep/er/2.jpg\n" in said
    assert "note: 2 links followed: train/cat/link.jpg, train/dog\n" in said
    loops = "back to a parent folder not followed: train/ant/again"
    assert f"note: 1 link {loops}\n" in said


HOLD_OUT = "--val-fraction 0.1 holds out a tenth of the images of each class"
MISTAKES: dict[str, tuple[list[str], str]] = {
    "classes alone": (
        ["pets"],
        f"has no train/ and no val/ (it contains cat, dog); {{}}{HOLD_OUT}",
    ),
    "test": (
        ["tested"],
        "to validate on test/, give --train {tmp}/tested/train --val {tmp}/tested/test",
    ),
    "val twice": (["twice"], "has valid/ and validation/; choose with --train DIR --val DIR"),
    "val and a fraction": (
        ["whole", "--val-fraction", "0.1"],
        "has train/, val/, not only classes",
    ),
    "neither": (["--train", "pets"], "--train needs --val DIR or --val-fraction F"),
    "nothing": ([], "give SRC, or --train DIR; not both"),
    "both": (["pets", "--train", "pets"], "give SRC, or --train DIR; not both"),
    "SRC and --val": (
        ["pets", "--val", "pets"],
        "give --train {tmp}/pets --val {tmp}/pets, without",
    ),
    "val inside train": (
        ["--train", "whole", "--val", "whole/val"],
        f"{{tmp}}/whole/val have the same images; give two folders, neither of them inside"
        f" the other, or {HOLD_OUT}",
    ),
    "no such folder": (["--train", "pets", "--val", "none"], "{tmp}/none does not exist"),
    "single images": (["single", "--val-fraction", "0.1"], "no class has two different"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_have_one_message_with_the_remedy(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path / "pets", {"cat": 2, "dog": 2})
    make_tree(tmp_path / "single", {"cat": 1, "dog": 1})
    for splits in ("tested/train", "tested/test", "twice/train", "twice/valid"):
        make_tree(tmp_path / splits, {"cat": 1})
    for splits in ("twice/validation", "whole/train", "whole/val"):
        make_tree(tmp_path / splits, {"cat": 1})
    given, says = MISTAKES[mistake]
    places = [f"{tmp_path}/{word}" if word[0] not in "-0" else word for word in given]
    assert prepare(tmp_path / "out", *places) == 2
    said = capsys.readouterr().err
    assert says.format("if these are classes, ", tmp=tmp_path) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fraction", ["0", "1", "-0.1", "10", "nan", "ten"])
def test_a_fraction_is_between_0_and_1(
    fraction: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        prepare(tmp_path / "out", tmp_path, f"--val-fraction={fraction}")
    assert f"{fraction!r} must be a number between 0 and 1" in capsys.readouterr().err
