"""CIFAR-10 as batches, folders and archives: every pixel is kept, and pickles are not trusted."""

import os
import pickle
import shutil
import struct
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.index import MANIFEST, Index, read_manifest
from tests.support.preparing import INDEX_FILES, contents, make_source, picture, run, save


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 does: byte strings, and the old names of numpy."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_str(self, value: str) -> None:
        self.save(value.encode("latin1"))

    dispatch[str] = save_str


def python2_pickle(value: object) -> bytes:
    content = BytesIO()
    Python2Pickler(content, 2).dump(value)
    return content.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


LABEL_NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
LABEL_NAMES += ["dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    """The original files, with 20 images instead of 10,000 in each."""
    root = tmp_path / "given/cifar-10-batches-py"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in names:
        batch = {
            "batch_label": name,
            "labels": [i % 10 for i in range(20)],
            "data": rng.integers(0, 256, (20, 3072), np.uint8),
            "filenames": [f"{i}.png" for i in range(20)],
        }
        (root / name).write_bytes(python2_pickle(batch))
    meta = {"num_cases_per_batch": 20, "label_names": LABEL_NAMES, "num_vis": 3072}
    (root / "batches.meta").write_bytes(python2_pickle(meta))
    return root


def cifar(source: Path, out: Path, *options: object) -> int:
    return run("cifar10", source, "--out", out, "--workers", 1, *options)


def packed(folder: Path) -> Path:
    archive = folder.parent / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


@pytest.mark.filterwarnings("default::DeprecationWarning")  # by numpy, for pickles of Python 2
@pytest.mark.filterwarnings("default:.*align should be passed.*")
def test_cifar_batches_keep_every_pixel_and_label(
    batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cifar(batches, tmp_path / "out", "--partial") == 0
    assert "note: 100 + 20 images of 10 classes, but CIFAR-10 has 50,000" in capsys.readouterr().out
    index = Index.open(tmp_path / "out", "train")
    assert list(index.manifest.classes) == LABEL_NAMES
    assert (len(index), len(Index.open(tmp_path / "out", "val"))) == (100, 20)
    raw: Any = [
        pickle.loads((batches / f"data_batch_{i}").read_bytes(), encoding="latin1")
        for i in range(1, 6)
    ]
    pixels = np.concatenate([batch["data"] for batch in raw]).reshape(-1, 3, 32, 32)
    for i in range(len(index)):
        number = int(index.path(i).stem)
        written = np.asarray(Image.open(index.path(i)))
        np.testing.assert_array_equal(written, pixels[number].transpose(1, 2, 0))
        assert index.labels[i] == number % 10


def test_cifar_is_the_same_from_archive_folder_and_parent(batches: Path, tmp_path: Path) -> None:
    prints = set[str]()
    for number, source in enumerate((batches, batches.parent, packed(batches))):
        assert cifar(source, tmp_path / str(number), "--partial") == 0
        prints.add(read_manifest(tmp_path / str(number)).fingerprint)
        made = {path.name for path in (tmp_path / str(number)).iterdir()}
        assert made == {*INDEX_FILES, "images"}, "no temporary files remain"
    assert len(prints) == 1


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    root = tmp_path / "given/cifar10"
    for seed, name in enumerate(LABEL_NAMES):
        save(root / f"train/{name}/0000.jpg", picture(seed, (32, 32)))
        save(root / f"test/{name}/0000.jpg", picture(100 + seed, (32, 32)))
    return root


def test_cifar_class_folders_are_indexed_in_place(class_folders: Path, tmp_path: Path) -> None:
    assert cifar(class_folders.parent, tmp_path / "out") == 0
    index = Index.open(tmp_path / "out", "val")
    assert index.path(0).is_relative_to(class_folders / "test")
    assert cifar(packed(class_folders), tmp_path / "unpacked") == 0
    unpacked = Index.open(tmp_path / "unpacked", "val")
    assert contents(unpacked) == contents(index)
    assert unpacked.manifest.root == "."
    assert unpacked.manifest.fingerprint == index.manifest.fingerprint


def test_original_batches_must_be_complete(
    batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (batches, packed(batches)):
        assert cifar(source, tmp_path / "out") == 2
        message = capsys.readouterr().err
        assert f"{source}: 100 + 20 images of 10 classes" in message
        assert "but CIFAR-10 has 50,000 + 10,000 of 10" in message
        assert "--partial" in message
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def test_class_folders_may_be_incomplete_which_is_noted(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        shutil.rmtree(class_folders / split / "ship")
    for number, source in enumerate((class_folders, packed(class_folders))):
        assert cifar(source, tmp_path / str(number)) == 0
        said = capsys.readouterr().out
        assert "note: 9 + 9 images of 9 classes, but CIFAR-10 has 50,000 + 10,000 of 10\n" in said
        assert read_manifest(tmp_path / str(number)).samples == {"train": 9, "val": 9}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_3"])
def test_a_pickle_that_runs_a_program_is_refused(
    name: str,
    batches: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (batches / name).write_bytes(pickle.dumps({b"data": Evil(), b"labels": [0]}))
    assert cifar(batches, tmp_path / "out", "--partial") == 2
    message = capsys.readouterr().err
    assert f"{name} is refused: it calls posix.mkdir" in message
    assert not (tmp_path / "evil-was-here").exists()
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}q\x00.",
        python2_pickle([1, 2]),
        python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}),
        python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}),
        python2_pickle({"data": np.zeros((1, 3072), np.float32), "labels": [0]}),
        python2_pickle({"data": np.array([[None] * 3072]), "labels": [0]}),
        python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}),
    ],
)
def test_damaged_batches_are_refused(
    content: bytes, batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (batches / "data_batch_2").write_bytes(content)
    assert cifar(batches, tmp_path / "out", "--partial") == 2
    assert "data_batch_2" in capsys.readouterr().err


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def test_other_folders_and_files_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(packed(source).read_bytes()[:200])
    for given in (source, packed(source), cut, tmp_path / "missing", source / "val/cat/6.jpg"):
        assert cifar(given, tmp_path / "out") == 2
    assert capsys.readouterr().err.count("prepare.py: ") == 5
