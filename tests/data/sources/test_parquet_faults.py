"""Parquet files that cannot be used: one clear message; and the meaning of labels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.sources.parquet.row_groups import RowGroupUnit
from pipeline.dataset.index import MANIFEST, read_manifest
from tests.support.parquet_files import (
    NAMES,
    PLAIN,
    SNAPPY,
    Options,
    listed,
    pictures,
    prepare,
    rows,
    write,
    write_both,
)

TRAIN = "train-00000-of-00001.parquet"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_both(tmp_path / "source")


def refused(source: Path, *options: object) -> str:
    """The message with which a source is refused; nothing is written."""
    out = source.parent / "out"
    with pytest.raises(ValueError) as caught:
        prepare(source, out, *options)
    assert not (out / MANIFEST).exists()
    assert not list(out.rglob("*.tar*"))
    return str(caught.value)


@pytest.mark.parametrize("options", [PLAIN, SNAPPY])
@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (None, 1, "image is null; write the file again without such rows"),
        ({"bytes": None, "path": "far/a.jpg"}, 1, "the image is in 'far/a.jpg'; write the file"),
        ({"bytes": None, "path": None}, 1, "image.bytes is null; write the file again with the"),
        ("good", None, "label is null; give files in which every image has a label"),
        ("good", -1, "label is -1, which means unlabelled; give files"),
        ("good", 3, "label is 3, not in 0..2; give the id of every class with --classes"),
    ],
)
def test_a_row_without_image_or_label_is_refused(
    source: Path, options: Options, image: Any, label: int | None, message: str
) -> None:
    content = rows("train")
    content[21] = (content[21][0] if image == "good" else image, label)
    file = write(source / TRAIN, content, options)
    found = refused(source)
    assert found.startswith(f"{file}, row 21: ")
    assert message in found


def test_a_label_that_is_too_large_is_refused(source: Path) -> None:
    huge = [(image, 1 << 40) for image, _ in rows("train")]
    write(source / TRAIN, huge, names=None)
    write(source / "val-00000-of-00001.parquet", rows("val"), names=None)
    assert f"row 0: label is {1 << 40}, not in 0..999999" in refused(source)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    plain, renamed = write_both(tmp_path / "plain"), tmp_path / "renamed"
    renamed.mkdir()
    for path in plain.iterdir():
        table = pq.read_table(path).rename_columns({"image": "a.picture", "label": "fine"})
        pq.write_table(table, renamed / path.name, compression="none")
    message = refused(renamed)
    assert "has no column 'image' (it has id, a.picture, fine)" in message
    assert "--image-column" in message
    assert "--label-column" in refused(renamed, "--image-column", "a.picture")
    prepare(plain, tmp_path / "a")
    columns = ["--image-column", "a.picture", "--label-column", "fine"]
    prepare(renamed, tmp_path / "b", *columns, "--partial")
    prints = {read_manifest(tmp_path / out).fingerprint for out in "ab"}
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"image": ["a.jpg"]}, "column 'image' is string, not a struct with a field `bytes`"),
        ({"image": [b"jpeg"]}, "column 'image' is binary, not a struct"),
        ({"image": [{"bytes": "text"}]}, "column 'image' is struct<bytes: string>, not a struct"),
        ({"image": [{"path": "text"}]}, "column 'image' is struct<path: string>, not a struct"),
        ({"label": ["cat"]}, "column 'label' is string, not whole numbers"),
        ({"label": [0.0]}, "column 'label' is double, not whole numbers"),
        ({"label": [True]}, "column 'label' is bool, not whole numbers"),
    ],
)
def test_columns_of_other_types_are_refused(
    source: Path, column: dict[str, Any], message: str
) -> None:
    good = {"image": [{"bytes": b"jpeg", "path": None}], "label": [0]}
    pq.write_table(pa.table({**good, **column}), source / TRAIN)
    assert refused(source).startswith(f"{source / TRAIN}: {message}")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64()])
def test_labels_may_be_of_any_integer_type(source: Path, tmp_path: Path, kind: Any) -> None:
    prepare(source, tmp_path / "a")
    write(source / TRAIN, rows("train"), label_type=kind)
    prepare(source, tmp_path / "b")
    prints = {read_manifest(tmp_path / out).fingerprint for out in "ab"}
    assert len(prints) == 1


def cut(content: bytes) -> bytes:
    return content[:-100]


@pytest.mark.parametrize("spoil", [cut, lambda _: b"", lambda _: b"no parquet" * 99])
def test_an_incomplete_parquet_file_is_refused(
    source: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = source / TRAIN
    path.write_bytes(spoil(path.read_bytes()))
    message = refused(source)
    assert message.startswith(f"{path} is not a complete Parquet file (")
    assert message.endswith("; fetch it again")


@pytest.mark.parametrize("options", [PLAIN, SNAPPY])
def test_damage_between_the_images_is_refused(source: Path, options: Options) -> None:
    path = write(source / TRAIN, rows("train"), options)
    content = bytearray(path.read_bytes())
    place = content.index(pictures("train")[30].content[:60] if options is PLAIN else b"JFIF", 9000)
    content[place - 200 : place + 200] = b"\xff" * 400
    path.write_bytes(content)
    assert str(path) in refused(source)


def test_a_file_that_changed_since_it_was_listed_is_refused(source: Path, tmp_path: Path) -> None:
    found, _ = listed(source, tmp_path / "out")
    write(source / TRAIN, rows("train")[:20])
    with pytest.raises(ValueError, match="changed while it was being read; prepare it again"):
        found.splits["train"][0].read()


def test_an_image_that_is_not_in_its_row_group_is_refused(source: Path, tmp_path: Path) -> None:
    found, _ = listed(source, tmp_path / "out")
    first, second = found.splits["train"][:2]
    assert isinstance(first, RowGroupUnit)
    assert isinstance(second, RowGroupUnit)
    elsewhere = replace(first.group, start=second.group.start, size=second.group.size)
    with pytest.raises(ValueError, match="row 0: the image is not in the file byte for byte"):
        replace(first, group=elsewhere).read()


def test_a_pattern_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    assert "train-* does not exist" in refused(tmp_path / "source")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "train-all"
    folder.mkdir(parents=True)
    write(tmp_path / "source" / "val-0.parquet", rows("val"))
    assert f"{folder} is not a file; give Parquet files" in refused(tmp_path / "source")


def test_a_file_that_is_given_twice_is_refused(source: Path) -> None:
    (source / "val-again.parquet").symlink_to(source / TRAIN)
    assert "val-again.parquet is given twice" in refused(source)


def test_files_without_rows_are_refused(source: Path) -> None:
    write(source / TRAIN, [])
    assert f"the files of --train have no rows ({source / TRAIN})" in refused(source)


def test_files_must_agree_about_the_labels(source: Path, tmp_path: Path) -> None:
    first, other = source / TRAIN, source / "train-1.parquet"
    write(other, rows("val"), names=("ant", "cat", "bee"))
    message = refused(source)
    assert message.startswith(f"{other}: label 1 is 'cat', but {first} has 'bee'; ")
    write(other, rows("val"), names=None)
    assert f"{other}: it names 0 classes, but {first} names 3; " in refused(source)
    (tmp_path / "classes").write_text("x\ny\nz\n")
    prepare(source, tmp_path / "out", "--classes", tmp_path / "classes")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.classes, manifest.class_names) == (("x", "y", "z"), ())


def test_names_that_are_identifiers_become_the_classes(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.classes, manifest.class_names) == (NAMES, NAMES)


@pytest.mark.parametrize("names", [("tench, Tinca tinca", "crane", "bee"), ("crane", "crane", "x")])
def test_other_names_are_the_words_of_numbered_classes(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    prepare(write_both(tmp_path / "source", names=names), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.classes, manifest.class_names) == (("0", "1", "2"), names)


def test_without_names_the_labels_decide_the_number_of_classes(tmp_path: Path) -> None:
    prepare(write_both(tmp_path / "source", names=None), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.classes, manifest.class_names) == (("0", "1", "2"), ())


def test_ids_of_classes_can_be_given(source: Path, tmp_path: Path) -> None:
    (tmp_path / "classes").write_text("n01440764\nn01443537\nn01484850\n")
    prepare(source, tmp_path / "out", "--classes", tmp_path / "classes")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.classes == ("n01440764", "n01443537", "n01484850")
    assert manifest.class_names == NAMES
    (tmp_path / "few").write_text("a\nb\n")
    (tmp_path / "out" / MANIFEST).unlink()
    message = refused(source, "--classes", tmp_path / "few")
    assert f"--classes has 2 classes, but {source / TRAIN} has 3" in message


def test_a_class_without_images_is_reported(tmp_path: Path) -> None:
    source = write_both(tmp_path / "source", names=(*NAMES, "dog"))
    assert "1 class has no training image: dog" in refused(source)
