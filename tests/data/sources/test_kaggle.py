"""ImageNet as Kaggle packs it: folders and tables that agree, and some that do not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset.index import Index, read_manifest
from tests.support.packings import KAGGLE, WNIDS, WORDS, Pictures, kaggle, make_pictures
from tests.support.preparing import run

TRAIN, VAL = 21, 11
SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures(TRAIN, VAL)


@pytest.fixture
def source(pictures: Pictures, tmp_path: Path) -> Path:
    kaggle(tmp_path / "source", pictures)
    return tmp_path / "source"


def prepare(source: Path, *options: object) -> int:
    return run("kaggle", source, "--out", source.parent / "out", *options)


def labels(out: Path, split: str) -> set[tuple[bytes, int]]:
    index = Index.open(out, split)
    return {(index.path(i).read_bytes(), int(index.labels[i])) for i in range(len(index))}


def test_labels_and_words_are_those_of_the_tables(source: Path, pictures: Pictures) -> None:
    assert prepare(source, "--partial") == 0
    out = source.parent / "out"
    for split, some in pictures.splits().items():
        assert labels(out, split) == {(each.content, each.label) for each in some}
    manifest = read_manifest(out)
    assert dict(zip(manifest.classes, manifest.class_names, strict=True)) == WORDS


def test_validation_images_may_lie_in_folders_of_classes(source: Path) -> None:
    assert prepare(source, "--partial") == 0
    before = read_manifest(source.parent / "out").fingerprint
    for path in sorted((source / KAGGLE / "val").iterdir()):
        folder = path.parent / WNIDS[0]  # the name of a folder does not matter
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    assert prepare(source, "--partial") == 0
    assert read_manifest(source.parent / "out").fingerprint == before


def test_without_the_mapping_classes_have_no_words(source: Path) -> None:
    (source / MAPPING).unlink()
    assert prepare(source, "--partial") == 0
    manifest = read_manifest(source.parent / "out")
    assert (manifest.classes, manifest.class_names) == (WNIDS, ())


def test_an_incomplete_source_keeps_the_labels(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(source / KAGGLE / "train" / WNIDS[0])
    assert prepare(source, "--partial") == 0
    assert f"1 class has no training image: {WNIDS[0]}" in capsys.readouterr().out
    out = source.parent / "out"
    assert read_manifest(out).classes == WNIDS
    assert {label for _, label in labels(out, "train")} == {1, 2, 3}


def test_all_of_imagenet_is_expected(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(source) == 2
    said = capsys.readouterr().err
    for count in ("1,281,167", "50,000", "1,000"):
        assert f"but ImageNet (ILSVRC2012) has {count}" in said
    assert said.endswith("accept this with --partial\n")


def test_a_missing_image_needs_partial(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / KAGGLE / "val/ILSVRC2012_val_00000003.JPEG").unlink()
    assert prepare(source) == 2
    lacks = f"lacks 1 image of {SOLUTION}: ILSVRC2012_val_00000003; unpack it again, or accept"
    assert lacks in capsys.readouterr().err
    assert prepare(source, "--partial") == 0
    assert f"note: {source / KAGGLE / 'val'} lacks 1 image of {SOLUTION}" in capsys.readouterr().out
    assert read_manifest(source.parent / "out").samples["val"] == VAL - 1


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes(change((source / name).read_bytes()))


def copy(path: str, to: str) -> Callable[[Path], object]:
    def spoil(source: Path) -> None:
        (source / KAGGLE / to).parent.mkdir(exist_ok=True)
        shutil.copy(source / KAGGLE / path, source / KAGGLE / to)

    return spoil


def pipe(name: str) -> Callable[[Path], object]:
    def spoil(source: Path) -> None:
        (source / name).unlink()
        os.mkfifo(source / name)

    return spoil


IMAGE = "val/ILSVRC2012_val_00000001.JPEG"
LINE = b"ILSVRC2012_val_00000005,"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tree": (lambda source: shutil.rmtree(source / "ILSVRC"), f"{KAGGLE}/train and "),
    "no val": (
        lambda source: shutil.rmtree(source / KAGGLE / "val"),
        f"{KAGGLE}/val is missing; give",
    ),
    "no solution": (lambda source: (source / SOLUTION).unlink(), f"{{}}/{SOLUTION} is missing"),
    "solution is a pipe": (pipe(SOLUTION), f"{{}}/{SOLUTION} is missing"),
    "solution is empty": (edit(SOLUTION, lambda _: b""), f"is not in {SOLUTION}"),
    "no class": (
        edit(SOLUTION, lambda text: text.replace(LINE, LINE + b" ")),
        f"{{}}/{SOLUTION}:8: 'ILSVRC2012_val_00000005, n",
    ),
    "unknown class": (
        edit(SOLUTION, lambda text: text.replace(LINE, LINE + b"n00000001 1 2 3 4\n")),
        f"{{}}/{SOLUTION}:8: 'ILSVRC2012_val_00000005,n00000001 1 2 3 4' does not name a new image",
    ),
    "image twice in the solution": (
        edit(SOLUTION, lambda text: text + LINE + WNIDS[0].encode() + b" \n"),
        f"{{}}/{SOLUTION}:13: 'ILSVRC2012_val_00000005,{WNIDS[0]}' does not name a new image",
    ),
    "image not in the solution": (
        edit(SOLUTION, lambda text: text.replace(LINE, b"ILSVRC2012_val_00000099,")),
        f"{KAGGLE}/val/ILSVRC2012_val_00000005.JPEG is not in {SOLUTION}",
    ),
    "solution is no text": (
        edit(SOLUTION, lambda _: b"\0\xff\x1b[2J," * 50_000),
        f"{{}}/{SOLUTION}:1: '\\x00\ufffd\\x1b[2J,",
    ),
    "solution is cut": (edit(SOLUTION, lambda text: text[:-20]), "does not name a new image"),
    "solution is zipped": (
        edit(SOLUTION, lambda text: b"PK\3\4" + text[::-1]),
        f"{{}}/{SOLUTION}:1: ",
    ),
    "mapping is damaged": (
        edit(MAPPING, lambda text: text.replace(WNIDS[1].encode(), b"n")),
        f"{{}}/{MAPPING}:2: 'n kit fox",
    ),
    "class twice in the mapping": (
        edit(MAPPING, lambda text: text + text),
        f"{{}}/{MAPPING}:5: 'n01440764 tench",
    ),
    "class not in the mapping": (
        lambda source: (source / KAGGLE / "train/n00000001").mkdir(),
        f"{{}}/{KAGGLE}/train contains n00000001, not WordNet ids from {MAPPING}",
    ),
    "a folder of other things": (
        lambda source: [(source / KAGGLE / "train/new\nline").mkdir(), (source / MAPPING).unlink()],
        f"{{}}/{KAGGLE}/train contains 'new\\nline', not WordNet ids",
    ),
    "image twice": (
        copy(IMAGE, "val/more/ILSVRC2012_val_00000001.jpg"),
        f"is a second {IMAGE}; remove one",
    ),
    "unknown image": (copy(IMAGE, "val/00000001.JPEG"), f"val/00000001.JPEG is not in {SOLUTION}"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_mistakes_are_reported_in_one_message(
    wrong: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, says = WRONG[wrong]
    spoil(source)
    assert prepare(source, "--partial") == 2
    said = capsys.readouterr().err
    assert says.format(source) in said
    assert said.startswith("prepare.py: ")
    assert said.count("\n") == 1
    assert not (source.parent / "out").exists()


def test_a_bad_image_is_reported_with_its_path(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / KAGGLE / IMAGE).write_bytes(b"nothing")
    assert prepare(source, "--partial") == 2
    assert f"{IMAGE}: not a JPEG" in capsys.readouterr().err
    assert prepare(source, "--partial", "--skip-bad") == 0
    assert "1 bad image left out" in capsys.readouterr().out
