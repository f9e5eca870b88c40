"""WebDataset shards: labels are found wherever they are, and mistakes are reported."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from data.indexing.archives import expand
from data.indexing.reading import LABEL_LIMIT
from data.sources.webdataset import split_name
from pipeline.dataset.index import Index, read_manifest
from tests.support.images import make_images
from tests.support.official import tar
from tests.support.packings import Pictures, make_pictures, shards_with_cls
from tests.support.preparing import run

IMAGES = [picture.content for picture in make_images(4, classes=2, size=(16, 12), seed=3)]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures(30, 9)


def good() -> Files:
    return {
        "0.jpg": IMAGES[0],
        "0.cls": b"1",
        "1.png": IMAGES[1],
        "1.cls": b"0",
    }


def prepare(folder: Path, train: Mapping[str, bytes], *options: object) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "train.tar").write_bytes(tar(train))
    (folder / "val.tar").write_bytes(tar(good()))
    shards = [folder / "train.tar", "--val", folder / "val.tar"]
    return run("webdataset", *shards, "--out", folder / "out", *options)


def samples(folder: Path) -> set[tuple[bytes, int]]:
    index = Index.open(folder / "out", "train")
    content = index.path(0).read_bytes()
    ranges = zip(index.offsets, index.sizes, index.labels, strict=True)
    return {(content[offset : offset + size], int(label)) for offset, size, label in ranges}


GOOD: dict[str, tuple[Files, list[str]]] = {
    "spaces about labels": ({"a.jpg": IMAGES[0], "a.cls": b" 1\n", "b.jpg": IMAGES[1]}, []),
    "zeros before a label": ({"a.jpg": IMAGES[0], "a.cls": b"0001", "b.jpg": IMAGES[1]}, []),
    "capitals": ({"a.JPEG": IMAGES[0], "a.CLS": b"1", "b.Jpg": IMAGES[1]}, []),
    "keys in folders": ({"x/a.jpg": IMAGES[0], "x/a.cls": b"1", "b.jpg": IMAGES[1]}, []),
    "a field of another name": (
        {"a.jpg": IMAGES[0], "a.json": b'{"label": 7, "y": 1}', "b.jpg": IMAGES[1]},
        ["--json-field", "y"],
    ),
    "both kinds of label": (
        {"a.json": b'{"label": 1}', "a.jpg": IMAGES[0], "a.cls": b"1", "b.jpg": IMAGES[1]},
        [],
    ),
    "a .json without a label": (
        {"a.json": b'{"width": 9}', "a.jpg": IMAGES[0], "a.cls": b"1", "b.jpg": IMAGES[1]},
        [],
    ),
    "a .json that is none": (
        {"a.json": b"[" * 100_000, "a.jpg": IMAGES[0], "a.cls": b"1", "b.jpg": IMAGES[1]},
        [],
    ),
    "what else lies there": (
        {
            "a.jpg": IMAGES[0],
            "a.cls": b"1",
            "b.jpg": IMAGES[1],
            "README": b"text",
            "._a.jpg": b"of a Mac",
            "a.seg.png": b"a mask",
            "a.txt": b"a caption",
        },
        [],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_images_get_their_labels(name: str, tmp_path: Path) -> None:
    files, options = GOOD[name]
    assert prepare(tmp_path, {**files, "b.cls": b"0", "b.json": b'{"y": 0}'}, *options) == 0
    assert samples(tmp_path) == {(IMAGES[0], 1), (IMAGES[1], 0)}


WRONG: dict[str, tuple[Files, str]] = {
    "missing label": (
        {"2.jpg": IMAGES[2]},
        "'2.jpg' has no label (a .cls with its name, or a .json",
    ),
    "label of another key": (
        {"x/2.jpg": IMAGES[2], "y/2.cls": b"1"},
        "'x/2.jpg' has no label",
    ),
    "missing image": ({"2.cls": b"1"}, "sample '2' has a label but no image (bmp, jpeg, jpg"),
    "key twice": (
        {"1.jpg": IMAGES[2]},
        "'1.jpg' is a second image of sample '1'; write the shard again",
    ),
    "two labels": ({"1.json": b'{"label": 1}'}, "'1.json' has label 1, but it was 0 before"),
    "no number": ({"2.jpg": IMAGES[2], "2.cls": b"cat\x1b"}, "'2.cls' contains b'cat\\x1b', not a"),
    "negative": (
        {"2.jpg": IMAGES[2], "2.cls": b"-1"},
        "b'-1', not a label from 0 to 999,",
    ),
    "a fraction": ({"2.jpg": IMAGES[2], "2.cls": b"1.0"}, "contains b'1.0', not a label"),
    "no text": (
        {"2.jpg": IMAGES[2], "2.cls": b"\1\0\0\0"},
        "b'\\x01\\x00\\x00\\x00', not",
    ),
    "empty label": ({"2.jpg": IMAGES[2], "2.cls": b""}, "'2.cls' contains b'', not a label"),
    "giant": ({"2.jpg": IMAGES[2], "2.cls": b"9" * 9}, "contains b'999999999', not a label from"),
    "endless": ({"2.jpg": IMAGES[2], "2.cls": b"9" * 99_999}, "contains b'99999999999999999999999"),
    "a truth": ({"2.jpg": IMAGES[2], "2.json": b'{"label": true}'}, "contains True, not a label"),
    "words": (
        {"2.jpg": IMAGES[2], "2.json": json.dumps({"label": "a\n" * 99}).encode()},
        "contains 'a\\na\\na",
    ),
    "image among labels": (
        {"2.jpg": IMAGES[2], "2.cls": IMAGES[2]},
        "contains b'\\xff\\xd8",
    ),
    "keys with dots": (
        {"p_21.05.jpg": IMAGES[2], "p_21.05.cls": b"1", "v1.5.jpg": IMAGES[3], "v1.5.cls": b"0"},
        "4 files such as 'p_21.05.jpg' would be lost, because a key ends at its first dot",
    ),
    "a key with a dot after one without": (
        {"1.5.png": IMAGES[2], "1.5.json": b'{"label": 1}'},
        "2 files such as '1.5.png' would be lost",
    ),
    "an image with dots, and no label": (
        {"v1.5.jpg": IMAGES[2]},
        "1 file such as 'v1.5.jpg' would",
    ),
    "a label with dots, and no image": ({"x/v1.5.cls": b"1"}, "1 file such as 'x/v1.5.cls' would"),
    "gap": (
        {"2.jpg": IMAGES[2], "2.cls": b"5"},
        "3 classes have no training image: 2, 3, 4; accept this with --partial",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_mistakes_are_reported_in_one_message(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, says = WRONG[wrong]
    assert prepare(tmp_path, {**good(), **files}) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "write the shard again" in said or wrong == "gap"
    assert said.startswith(f"prepare.py: {tmp_path / 'train.tar'}: ") or wrong == "gap"
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ignored_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"README": b"text", "._0.jpg": b"of a Mac", "0.seg.png": b"mask", "0.txt": b"caption"}
    captions = {f"{n}.{n}.txt": b"caption" for n in range(20)}
    assert prepare(tmp_path, {**good(), **files, **captions}) == 0
    said = capsys.readouterr().out
    kinds = "21 .txt, 1 without an ending, 1 hidden, 1 .seg.png"
    assert f"note: 24 files ignored, neither images nor labels: {kinds}\n" in said


@pytest.mark.parametrize(
    "keys", [("a", "photo_2021.05.07", "v1.5"), ("x.y/1.2", "1.jpg.cls", "a.")]
)
def test_keys_may_end_at_the_last_dot(keys: tuple[str, ...], tmp_path: Path) -> None:
    files = {
        f"{key}.{ending}": content
        for label, key in enumerate(keys)
        for ending, content in (("cls", b"%d" % (label % 2)), ("JPG", IMAGES[label]))
    }
    assert prepare(tmp_path, files, "--last-dot") == 0
    assert samples(tmp_path) == {(IMAGES[0], 0), (IMAGES[1], 1), (IMAGES[2], 0)}


def test_an_empty_image_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {**good(), "2.jpg": b"", "2.cls": b"1"}
    assert prepare(tmp_path, files) == 2
    said = capsys.readouterr().err
    assert "1 of 5 images cannot be used" in said
    assert f"{tmp_path / 'train.tar'}, 2.jpg: empty" in said
    assert prepare(tmp_path, files, "--skip-bad") == 0
    assert samples(tmp_path) == {(IMAGES[0], 1), (IMAGES[1], 0)}


def test_labels_are_compared_with_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = tmp_path / "classes.txt"
    for text, says in (
        ("", "must name each class once"),
        ("one\none\n", "must name each class once"),
        ("one\n", "'0.cls' contains b'1', not a label from 0 to 0"),
        ("one\ntwo\nthree\n", "1 class has no training image: three"),
    ):
        classes.write_text(text)
        assert prepare(tmp_path, good(), "--classes", classes) == 2
        assert says in capsys.readouterr().err
    classes.write_bytes(b"\xff\xff")
    assert prepare(tmp_path, good(), "--classes", classes) == 2
    assert f"--classes {classes} cannot be read" in capsys.readouterr().err
    assert prepare(tmp_path, good(), "--classes", tmp_path / "none.txt") == 2
    assert "No such file" in capsys.readouterr().err
    classes.write_text("one\r\ntwo\r\n\r\n")
    assert prepare(tmp_path, good(), "--classes", classes) == 0
    assert read_manifest(tmp_path / "out").classes == ("one", "two")


def test_a_label_beyond_any_network_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {**good(), "2.jpg": IMAGES[2]}
    assert prepare(tmp_path, {**files, "2.cls": b"%d" % LABEL_LIMIT}, "--partial") == 2
    assert f"not a label from 0 to {LABEL_LIMIT - 1:,}" in capsys.readouterr().err
    assert prepare(tmp_path, {**files, "2.cls": b"100000"}, "--partial") == 0
    assert "99,998 classes have no training image" in capsys.readouterr().out


# --------------------------------------------------------------------------------- shards and names


@pytest.mark.parametrize(
    ("name", "key", "ending"),
    [
        ("0.jpg", "0", "jpg"),
        ("a/b/0.JPG", "a/b/0", "jpg"),
        ("a.b/0.seg.png", "a.b/0", "seg.png"),
        ("a.b/0", "a.b/0", ""),
        ("a/.jpg", "", ""),
        (".jpg", "", ""),
    ],
)
def test_a_key_ends_at_the_first_dot(name: str, key: str, ending: str) -> None:
    """As in WebDataset itself: folders are part of the key, with any dots in them."""
    assert split_name(name) == (key, ending)


def test_keys_are_those_of_webdataset() -> None:
    from webdataset.tariterators import base_plus_ext

    for name in ("0.jpg", "a/b/0.jpg", "a.b/0.seg.png", "a.b/c.d/0.x.y.z"):
        assert split_name(name) == base_plus_ext(name)


def test_patterns_name_shards_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{split}-{number:02d}.tar" for split in ("a", "b") for number in range(12)]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert expand(["a-{08..11}.tar"]) == [Path(f"a-{n:02d}.tar") for n in (8, 9, 10, 11)]
    assert expand([f"{tmp_path}/b-*.tar"]) == [tmp_path / name for name in names[12:]]
    assert expand(["b-0?.tar", "a-03.tar"]) == [*map(Path, names[12:22]), Path("a-03.tar")]
    assert len(expand(["a-{0..1}{0..1}.tar"])) == 4
    (tmp_path / "odd[1].tar").touch()
    assert expand(["odd[1].tar"]) == [Path("odd[1].tar")]


@pytest.fixture
def shards_here(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shards_with_cls(tmp_path / "shards", pictures)
    monkeypatch.chdir(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("none-*.tar", "none-*.tar does not exist; quote the pattern, and check its range"),
        ("train-{000..004}.tar", "train-004.tar does not exist"),
        ("train-{000..99999999999999}.tar", "train-004.tar does not exist"),
        ("train-{003..000}.tar", "{003..000} counts down; give the smaller number first"),
        ("train-*.tar train-001.tar", "train-001.tar is given twice"),
        ("train-000.tar val-000.tar", "val-000.tar is given twice"),
        ("", "is not a plain file; give the archive itself"),
        ("nowhere/*.tar", "nowhere/*.tar does not exist"),
    ],
)
def test_a_wrong_pattern_is_refused(
    pattern: str, says: str, shards_here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = pattern.split(" ")
    assert run("webdataset", *shards, "--val", "val-000.tar", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


Spoil = Callable[[Path], object]
DAMAGED: dict[str, tuple[Spoil, str]] = {
    "compressed": (
        lambda path: path.write_bytes(gzip.compress(path.read_bytes())),
        "is compressed (gzip); decompress it with gunzip",
    ),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "is truncated"),
    "empty": (lambda path: path.write_bytes(b""), "is not a tar archive"),
    "text": (lambda path: path.write_bytes(b"text" * 500), "is not a tar archive"),
    "without images": (
        lambda path: path.write_bytes(tar({"n01440764.tar": b""})),
        "webdataset: no images for train",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_shard_is_refused(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/train.tar"
    path.write_bytes(tar(good()))
    (tmp_path / "in/val.tar").write_bytes(path.read_bytes())
    spoil, says = DAMAGED[damage]
    spoil(path)
    command = ["webdataset", path, "--val", tmp_path / "in/val.tar", "--out", tmp_path / "out"]
    assert run(*command) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
