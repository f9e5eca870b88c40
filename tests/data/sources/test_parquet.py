"""Images in Parquet files are indexed byte for byte, in place if possible."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.formats.tar_writer import TarWriter
from data.indexing.journal import JOURNAL
from data.indexing.reading import read_listing
from pipeline.dataset.index import MANIFEST, Index, Manifest, read_manifest
from pipeline.dataset.samples import file_state
from pipeline.dataset.writing import write_dataset
from tests.support.images import write_pictures
from tests.support.parquet_files import (
    CLASSES,
    PLAIN,
    SNAPPY,
    SPLITS,
    Options,
    listed,
    pictures,
    prepare,
    rows,
    write,
    write_both,
)
from tests.support.preparing import INDEX_FILES

IN_PLACE: Sequence[Options] = (
    PLAIN,
    {**PLAIN, "data_page_version": "2.0"},
    {"compression": "none", "use_dictionary": True},
    {"compression": "none", "use_dictionary": True, "data_page_version": "2.0"},
    {"compression": "none", "dictionary_pagesize_limit": 3000},
    {"compression": {"image.bytes": "none", "image.path": "snappy", "label": "zstd"}},
    {**PLAIN, "write_page_index": True, "write_page_checksum": True, "store_schema": False},
)
COPIED: Sequence[Options] = (
    SNAPPY,
    {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"},
    {**PLAIN, "column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}},
    {**PLAIN, "column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"}},
)


def loose(folder: Path) -> Manifest:
    """Index the same images as one file each."""
    splits = {split: pictures(split) for split in ("train", "val")}
    return read_manifest(write_pictures(folder, splits, classes=CLASSES))


def contents(out: Path, split: str) -> list[tuple[int, bytes]]:
    """The label and the bytes of each sample."""
    index = Index.open(out, split)
    found: list[tuple[int, bytes]] = []
    for sample in range(len(index)):
        start, size = int(index.offsets[sample]), int(index.sizes[sample])
        stored = index.path(sample).read_bytes()[start : start + size]
        found.append((int(index.labels[sample]), stored))
    return found


def expect_same(out: Path, tmp_path: Path) -> None:
    assert read_manifest(out).fingerprint == loose(tmp_path / "loose").fingerprint
    for split in ("train", "val"):
        there = sorted((picture.label, picture.content) for picture in pictures(split))
        assert sorted(contents(out, split)) == there


@pytest.mark.parametrize("options", IN_PLACE)
def test_images_stored_byte_for_byte_stay_in_place(options: Options, tmp_path: Path) -> None:
    dataset = prepare(write_both(tmp_path / "source", options), tmp_path / "out")
    expect_same(tmp_path / "out", tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == INDEX_FILES
    assert not dataset.notes


def test_a_dictionary_can_be_in_any_order(tmp_path: Path) -> None:
    for path in write_both(tmp_path / "source").iterdir():
        table = pq.read_table(path)
        images = [image["bytes"].as_py() for image in table["image"]]
        ordered = sorted(set(images), reverse=True)
        places = pa.array([ordered.index(image) for image in images])
        column = pa.DictionaryArray.from_arrays(places, pa.array(ordered))
        image = pa.StructArray.from_arrays([column], ["bytes"])
        table = pa.table({"image": image, "label": table["label"]})
        pq.write_table(table, path, compression="none", store_schema=False)
    prepare(tmp_path / "source", tmp_path / "out")
    expect_same(tmp_path / "out", tmp_path)


@pytest.mark.parametrize("options", COPIED)
def test_other_images_are_copied(options: Options, tmp_path: Path) -> None:
    dataset = prepare(write_both(tmp_path / "source", options), tmp_path / "out")
    expect_same(tmp_path / "out", tmp_path)
    assert read_manifest(tmp_path / "out").root == ".", "the index can move with its images"
    (note,) = dataset.notes
    reason = "encoded (DELTA" if "column_encoding" in options else "compressed ("
    assert note.startswith(f"image.bytes is {reason}")
    assert f" in 2 files: the images were copied to {tmp_path / 'out' / 'images'}, " in note


def test_only_files_that_need_it_are_copied(tmp_path: Path) -> None:
    source, whole = tmp_path / "here" / "source", rows("train")
    write(source / "train-0.parquet", whole[:30])
    write(source / "train-1.parquet", whole[30:], SNAPPY)
    write(source / "val-0.parquet", rows("val"))
    prepare(source, tmp_path / "there" / "out")
    expect_same(tmp_path / "there" / "out", tmp_path)
    shards = sorted(p.name for p in (tmp_path / "there").rglob("*") if p.suffix == ".tar")
    assert shards == ["train-1.tar"]


def test_each_row_group_is_a_unit(tmp_path: Path) -> None:
    found, _ = listed(write_both(tmp_path / "source"), tmp_path / "out")
    sizes = {split: [len(unit.read().samples) for unit in found.splits[split]] for split in SPLITS}
    assert sizes == {"train": [16, 16, 16, 10], "val": [16, 1]}
    keys = [unit.key for units in found.splits.values() for unit in units]
    assert len(set(keys)) == len(keys)


def test_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.indexing.reading.FEW_BYTES", 0)
    source = write_both(tmp_path / "source", SNAPPY)
    write(source / "train-1.parquet", rows("train"))
    prepare(source, tmp_path / "a")
    prepare(source, tmp_path / "b", "--workers", 2)
    for split in SPLITS:
        assert contents(tmp_path / "a", split) == contents(tmp_path / "b", split)


def test_a_copy_is_a_plain_tar_that_is_always_the_same(tmp_path: Path) -> None:
    source = write_both(tmp_path / "source", SNAPPY)
    stored: list[bytes] = []
    for out in (tmp_path / "a", tmp_path / "b"):
        prepare(source, out)
        stored.append((out / "images/val/val-00000-of-00001.tar").read_bytes())
    assert stored[0] == stored[1]
    with tarfile.open(tmp_path / "a/images/val/val-00000-of-00001.tar") as tar:
        there = {}
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            there[member.name] = content.read()
    made = pictures("val")
    assert there == {f"{row:06d}.jpg": picture.content for row, picture in enumerate(made)}


def test_copying_again_changes_nothing(tmp_path: Path) -> None:
    source, out = write_both(tmp_path / "source", SNAPPY), tmp_path / "out"
    prepare(source, out)
    before = {path: file_state(path) for path in out.rglob("*.tar")}
    prepare(source, out)
    assert {path: file_state(path) for path in out.rglob("*.tar")} == before


def test_a_copy_that_was_lost_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.indexing.reading.FEW_BYTES", 0)
    source, out = write_both(tmp_path / "source", SNAPPY), tmp_path / "out"
    read_listing(*listed(source, out), out=out)
    assert (out / JOURNAL).exists(), "as after a kill"
    (out / "images/val/val-00000-of-00001.tar").unlink()
    prepare(source, out)
    expect_same(out, tmp_path)


def test_an_interrupted_copy_leaves_nothing_and_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.indexing.reading.FEW_BYTES", 0)
    source, out = write_both(tmp_path / "source", SNAPPY), tmp_path / "out"
    add, left = TarWriter.add, iter(range(len(rows("train")) + 2))

    def interrupted(self: TarWriter, name: str, content: bytes) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return add(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(TarWriter, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out)
    written = out / "images/train/train-00000-of-00001.tar"
    assert [path for path in out.rglob("*.tar*") if path.is_file()] == [written]
    before = file_state(written)
    prepare(source, out)
    assert file_state(written) == before
    expect_same(out, tmp_path)


def test_the_rest_of_a_killed_copy_is_removed(tmp_path: Path) -> None:
    source, out = write_both(tmp_path / "source", SNAPPY), tmp_path / "out"
    names = (".train-00000-of-00001.tar.tmp", ".train-00000-of-00001.tar.123.tmp")
    halves = [out / "images/train" / name for name in names]
    halves[0].parent.mkdir(parents=True)
    (out / "images/.prepared").touch()
    for half in halves:
        half.write_bytes(b"half" * 100_000)
    prepare(source, out)
    expect_same(out, tmp_path)
    assert not any(half.exists() for half in halves)


def test_a_dataset_loses_its_manifest_when_its_copy_is_replaced(tmp_path: Path) -> None:
    source, out = write_both(tmp_path / "source", SNAPPY), tmp_path / "out"
    prepare(source, out)
    write(source / "train-00000-of-00001.parquet", rows("train")[::-1], SNAPPY)
    found, options = listed(source, out)
    with pytest.raises(ValueError, match="has another dataset"):
        read_listing(found, options, out=out)
    found, options = listed(source, out, "--replace")
    assert (out / MANIFEST).exists(), "so far nothing has changed"
    write_dataset(out / "elsewhere", read_listing(found, options, out=out))
    assert not (out / MANIFEST).exists()


def test_a_foreign_images_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out/images").mkdir(parents=True)
    (tmp_path / "out/images/mine.jpg").touch()
    with pytest.raises(ValueError, match="images was not made by"):
        listed(write_both(tmp_path / "source", SNAPPY), tmp_path / "out")
    listed(write_both(tmp_path / "source", PLAIN), tmp_path / "out")


def test_bad_images_are_named_by_their_rows(tmp_path: Path) -> None:
    for options in (PLAIN, SNAPPY):
        out = tmp_path / str(options["compression"])
        content = rows("train")
        content[17] = ({"bytes": b"", "path": None}, 1)
        content[40] = ({"bytes": b"no image at all", "path": None}, 1)
        source = write_both(tmp_path / "source", options)
        file = write(source / "train-00000-of-00001.parquet", content, options)
        with pytest.raises(ValueError, match=r"2 of 75 images cannot be used") as caught:
            prepare(source, out)
        assert f"{file}, row 17: empty" in str(caught.value)
        assert f"{file}, row 40: not a JPEG" in str(caught.value)
        assert not (out / MANIFEST).exists()
        prepare(source, out, "--skip-bad")
        kept = [*pictures("train")[:17], *pictures("train")[18:40], *pictures("train")[41:]]
        assert sorted(contents(out, "train")) == sorted((p.label, p.content) for p in kept)
