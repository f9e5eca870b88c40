"""Preparing data: what is indexed is what lies on disk, and mistakes get one clear message."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from data import prepare
from pipeline.dataset.index import MANIFEST, Index, Sample, digest, read_manifest, write_dataset

ROOT = Path(__file__).parents[1]
IMAGENET_SAMPLE = ROOT.parent / "shared" / "data" / "imagenet-sample.tar"


def run(*arguments: object) -> int:
    return prepare.main([str(argument) for argument in arguments])


def folder(source: Path, out: Path, *options: object) -> int:
    return run("imagefolder", source, "--out", out, "--workers", 1, *options)


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)


def picture(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.fromarray(noise.squeeze(-1) if bands == 1 else noise, mode=None).convert(mode)


def save(path: Path, image: Image.Image, kind: str = "JPEG", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three classes, of which validation has two; nested folders, capitals, a stray text."""
    root = tmp_path / "source"
    names = ["train/ant/1.JPEG", "train/ant/deep/er/2.jpg", "train/Bee/3.jpeg", "train/cat/4.jpg"]
    for seed, name in enumerate([*names, "val/ant/5.JPG", "val/cat/6.jpg"]):
        save(root / name, picture(seed))
    (root / "train/ant/readme.txt").write_text("not an image")
    return root


def contents(index: Index) -> list[tuple[int, bytes]]:
    return [(int(index.labels[i]), index.path(i).read_bytes()) for i in range(len(index))]


# -------------------------------------------------------------------------------------- digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "one"
    assert run("digits", "--out", out) == 0
    return out


def test_digits_are_all_there_once_and_stratified(digits: Path) -> None:
    train, val = (Index.open(digits, split) for split in ("train", "val"))
    digests = {bytes(d) for index in (train, val) for d in index.table.column("digest").to_pylist()}
    assert len(train) + len(val) == 1797
    assert len(digests) == 1797, "no image is in both splits, none comes twice"
    both = np.bincount(train.labels) + np.bincount(val.labels)
    np.testing.assert_array_equal(np.bincount(val.labels), both // 5)


def test_digits_are_indexed_as_written(digits: Path) -> None:
    index = Index.open(digits, "val")
    for i in range(0, len(index), 50):
        content = index.path(i).read_bytes()
        assert len(content) == index.sizes[i]
        assert Image.open(BytesIO(content)).size == (index.widths[i], index.heights[i]) == (16, 16)
        assert index.path(i).parent.name == index.manifest.classes[index.labels[i]]


def test_digits_are_the_same_each_time_and_can_move(digits: Path, tmp_path: Path) -> None:
    first = read_manifest(digits)
    assert run("digits", "--out", tmp_path / "two") == 0
    assert run("digits", "--out", tmp_path / "two") == 0
    shutil.move(tmp_path / "two", tmp_path / "three")
    assert read_manifest(tmp_path / "three") == first
    assert contents(Index.open(tmp_path / "three", "val")) == contents(Index.open(digits, "val"))


def test_a_foreign_folder_of_images_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = save(tmp_path / "images/holiday.jpg", picture(0))
    assert run("digits", "--out", tmp_path) == 2
    assert "was not made by prepare.py" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [mine.name]


# --------------------------------------------------------------------------------- imagefolder


def test_classes_and_labels_are_torchvisions(source: Path, tmp_path: Path) -> None:
    assert folder(source, tmp_path / "out") == 0
    index = Index.open(tmp_path / "out", "train")
    theirs = ImageFolder(source / "train")
    assert list(index.manifest.classes) == theirs.classes
    ours = {(str(index.path(i)), int(index.labels[i])) for i in range(len(index))}
    assert ours == set(theirs.samples)


def test_validation_labels_are_those_of_training(source: Path, tmp_path: Path) -> None:
    assert folder(source, tmp_path / "out") == 0
    assert read_manifest(tmp_path / "out").classes == ("Bee", "ant", "cat")
    assert Index.open(tmp_path / "out", "val").labels.tolist() == [1, 2]


def test_nothing_is_copied_and_other_files_are_counted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(source, tmp_path / "out") == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {MANIFEST, "train.arrow", "val.arrow"}
    assert "1 files not named as images ignored: train/ant/readme.txt" in capsys.readouterr().out


def test_layout_and_names_of_files_do_not_matter(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for number, path in enumerate(sorted(source.rglob("*.[jJ]*"), reverse=True)):
        split, name = path.relative_to(source).parts[:2]
        target = other / split / name / str(number) / f"{number}.jpg"
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    assert folder(source, tmp_path / "a") == folder(other, tmp_path / "b") == 0
    a, b = read_manifest(tmp_path / "a"), read_manifest(tmp_path / "b")
    assert a.fingerprint == b.fingerprint
    for split in ("train", "val"):
        ours, theirs = Index.open(tmp_path / "a", split), Index.open(tmp_path / "b", split)
        assert contents(ours) == contents(theirs), "and sample numbers mean the same images"


def test_one_changed_byte_is_another_dataset(source: Path, tmp_path: Path) -> None:
    assert folder(source, tmp_path / "a") == 0
    path = source / "val/cat/6.jpg"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    assert folder(source, tmp_path / "b") == 0
    prints = {read_manifest(tmp_path / out).fingerprint for out in "ab"}
    assert len(prints) == 2


def test_processes_change_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed in range(150):
        save(source / f"{'val' if seed < 5 else 'train'}/one/{seed}.jpg", picture(seed, (4, 4)))
    assert folder(source, tmp_path / "a", "--workers", 1) == 0
    assert folder(source, tmp_path / "b", "--workers", 2) == 0
    for split in ("train", "val"):
        a, b = Index.open(tmp_path / "a", split), Index.open(tmp_path / "b", split)
        assert a.table.equals(b.table)


def test_index_and_images_move_together_when_one_holds_the_other(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(source)
    for out, root in ((source / "a/b", "../.."), (source, "."), (tmp_path, "source")):
        assert folder(tmp_path / "link", out) == 0
        assert read_manifest(out).root == root
        assert len(contents(Index.open(out, "train"))) == 4
    assert folder(source, tmp_path / "apart/x") == 0
    assert Path(read_manifest(tmp_path / "apart/x").root) == source.resolve()


def test_links_are_followed_but_not_in_circles(source: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/7.jpg", picture(7))
    (source / "train/dog").symlink_to(tmp_path / "elsewhere")
    (source / "train/ant/again").symlink_to(source / "train/ant")
    assert folder(source, tmp_path / "out") == 0
    assert np.bincount(Index.open(tmp_path / "out", "train").labels).tolist() == [1, 2, 1, 1]


ODD_IMAGES: dict[str, Callable[[Path], Path]] = {
    "grey": lambda path: save(path, picture(0, (7, 5), "L")),
    "cmyk": lambda path: save(path, picture(0, (7, 5), "CMYK")),
    "png": lambda path: save(path, picture(0, (7, 5)), "PNG"),
    "palette": lambda path: save(path, picture(0, (7, 5)).convert("P"), "PNG"),
    "tiff": lambda path: save(path, picture(0, (7, 5)), "TIFF"),
    "webp": lambda path: save(path, picture(0, (7, 5)), "WEBP"),
    "bmp": lambda path: save(path, picture(0, (7, 5)), "BMP"),
    "ppm": lambda path: save(path, picture(0, (7, 5)), "PPM"),
    "rotated": lambda path: save(path, picture(0, (7, 5)), exif=_quarter_turn()),
    "progressive": lambda path: save(path, picture(0, (7, 5)), progressive=True),
    "tiny": lambda path: save(path, Image.new("RGB", (1, 1))),
    "large": lambda path: save(path, Image.new("L", (5000, 4000))),
    "huge": lambda path: save(path, Image.new("1", (20_000, 10_000)), "PNG"),
}
ODD_SIZES = {"tiny": (1, 1), "large": (5000, 4000), "huge": (20_000, 10_000)}


def _quarter_turn() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_odd_images_have_their_stored_size(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, write in ODD_IMAGES.items():
        write(source / "train" / name / "image.JPEG")
    save(source / "val/grey/image.png", picture(1), "PNG")
    assert folder(source, tmp_path / "out") == 0
    index = Index.open(tmp_path / "out", "train")
    found = {index.path(i).parent.name: (index.widths[i], index.heights[i]) for i in range(13)}
    assert found == {name: ODD_SIZES.get(name, (7, 5)) for name in ODD_IMAGES}


@pytest.fixture
def spoilt(source: Path) -> Path:
    (source / "train/ant/empty.jpg").touch()
    (source / "train/ant/text.jpg").write_text("no image at all")
    (source / "train/ant/cut.jpg").write_bytes((source / "train/ant/1.JPEG").read_bytes()[:30])
    (source / "train/cat/nowhere.jpg").symlink_to("missing.jpg")
    os.mkfifo(source / "train/cat/pipe.jpg")
    (source / "val/cat/not-utf8-\udcff.jpg").write_bytes(b"x")
    save(source / "val/cat/animated.jpg", picture(0), "GIF")
    return source


def test_bad_files_are_listed_all_at_once(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(spoilt, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "7 of 13 image files cannot be used" in message
    assert "--skip-bad" in message
    for name in ("empty.jpg: empty", "text.jpg", "cut.jpg", "nowhere.jpg", "pipe.jpg", "UTF-8"):
        assert name in message
    assert "animated.jpg: no image (of JPEG" in message
    assert not (tmp_path / "out").exists()


def test_a_long_list_of_bad_files_is_cut(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(25):
        (source / f"train/ant/bad{number:02d}.jpg").touch()
    assert folder(source, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "bad09.jpg" in message
    assert "bad10.jpg" not in message
    assert "and 15 more" in message


def test_bad_files_can_be_left_out(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder(spoilt, tmp_path / "out", "--skip-bad") == 0
    assert "7 bad image files left out" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out").samples == {"train": 4, "val": 2}


def test_a_class_that_is_all_bad_is_not_left_out(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "train/cat/4.jpg").write_bytes(b"")
    assert folder(source, tmp_path / "out", "--skip-bad") == 2
    assert "1 classes without an image" in capsys.readouterr().err


Spoil = Callable[[Path], object]
MISTAKES: dict[str, tuple[Spoil, str]] = {
    "no source": (shutil.rmtree, "does not exist"),
    "no val": (lambda source: shutil.rmtree(source / "val"), "has no val/ (it holds train)"),
    "no classes": (
        lambda source: [shutil.rmtree(path) for path in (source / "val").iterdir()],
        "holds no class folders",
    ),
    "empty class": (lambda source: (source / "train/owl").mkdir(), "without an image"),
    "unknown class": (
        lambda source: save(source / "val/owl/1.jpg", picture(0)),
        "1 classes that train/ has not: owl",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_message(
    mistake: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = MISTAKES[mistake]
    spoil(source)
    assert folder(source, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert expected in message
    assert str(source) in message
    assert not (tmp_path / "out").exists()


def test_out_must_be_a_folder_outside_the_classes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert folder(source, tmp_path / "file") == 2
    assert folder(source, tmp_path / "file/below") == 2
    assert folder(source, source / "train/out") == 2
    assert capsys.readouterr().err.count("\n") == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_must_be_writable(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert folder(source, tmp_path / "locked/out") == 2
    assert "no right to write" in capsys.readouterr().err


def test_a_full_disk_leaves_the_old_dataset_whole(source: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the index does not fit, its rest does."""
    out = tmp_path / "out"
    assert folder(source, out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for seed in range(20):
        save(source / f"train/cat/more{seed}.jpg", picture(100 + seed))
    command = (
        "import resource, signal, sys; from data import prepare;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600));"
        f"sys.exit(prepare.main(['imagefolder', {str(source)!r}, '--out', {str(out)!r}]))"
    )
    done = python("-c", command)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_refused_index_leaves_the_old_dataset_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert folder(source, out) == 0
    before = read_manifest(out)
    stray = Sample("x.jpg", 0, 1, 3, 1, 1, digest(b"x"))
    with pytest.raises(ValueError, match="label 3 is not in"):
        write_dataset(out, name="x", classes="abc", root=".", splits={"train": [stray]})
    assert read_manifest(out) == before


# ------------------------------------------------------------------------------------- cifar10


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did: byte strings, and numpy where it was then."""

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


@pytest.mark.filterwarnings("default::DeprecationWarning")  # numpy's own, for Python 2's pickles
@pytest.mark.filterwarnings("default:.*align should be passed.*")
def test_cifar_batches_keep_every_pixel_and_label(batches: Path, tmp_path: Path) -> None:
    assert cifar(batches, tmp_path / "out", "--partial") == 0
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
        assert made == {MANIFEST, "train.arrow", "val.arrow", "images"}, "nothing is left over"
    assert len(prints) == 1


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    root = tmp_path / "given/cifar10"
    for seed, name in enumerate(LABEL_NAMES):
        save(root / f"train/{name}/0000.jpg", picture(seed, (32, 32)))
        save(root / f"test/{name}/0000.jpg", picture(100 + seed, (32, 32)))
    return root


def test_cifar_class_folders_are_indexed_in_place(class_folders: Path, tmp_path: Path) -> None:
    assert cifar(class_folders.parent, tmp_path / "out", "--partial") == 0
    index = Index.open(tmp_path / "out", "val")
    assert index.path(0).is_relative_to(class_folders / "test")
    assert cifar(packed(class_folders), tmp_path / "unpacked", "--partial") == 0
    unpacked = Index.open(tmp_path / "unpacked", "val")
    assert contents(unpacked) == contents(index)
    assert unpacked.manifest.root == "."
    assert unpacked.manifest.fingerprint == index.manifest.fingerprint


def test_cifar_must_be_complete(
    batches: Path, class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (batches, class_folders):
        assert cifar(source, tmp_path / "out") == 2
        message = capsys.readouterr().err
        assert "CIFAR-10 has 50,000 + 10,000 of 10" in message
        assert "--partial" in message
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


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
    assert f"{name} is refused: it calls for posix.mkdir" in message
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


def test_archives_that_lead_elsewhere_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("../../evil")
        tar.addfile(member, BytesIO())
    assert cifar(archive, tmp_path / "a/out") == 2
    assert "cannot be unpacked" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_what_is_no_cifar_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(packed(source).read_bytes()[:200])
    for given in (source, packed(source), cut, tmp_path / "missing", source / "val/cat/6.jpg"):
        assert cifar(given, tmp_path / "out") == 2
    assert capsys.readouterr().err.count("prepare.py: ") == 5


# -------------------------------------------------------------------------------- as a program


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return python(ROOT / "data/prepare.py", *arguments)


def test_the_program_says_what_it_made(source: Path, tmp_path: Path) -> None:
    done = program("imagefolder", source, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["fingerprint"] in done.stdout
    assert f"data.dir={tmp_path / 'out'}" in done.stdout


def test_the_program_refuses_without_a_traceback(tmp_path: Path) -> None:
    done = program("imagefolder", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == (
        f"prepare.py: {tmp_path / 'none'} does not exist; give the folder that holds the images\n"
    )


@pytest.mark.skipif(not IMAGENET_SAMPLE.exists(), reason="needs the sample of real images")
def test_real_images(tmp_path: Path) -> None:
    with tarfile.open(IMAGENET_SAMPLE) as tar:
        tar.extractall(tmp_path, filter="data")
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "imagenet-sample").rename(source / "train")
    (source / "val").symlink_to(source / "train")
    assert run("imagefolder", source, "--out", tmp_path / "out", "--workers", 2) == 0
    index = Index.open(tmp_path / "out", "val")
    assert (len(index), len(index.manifest.classes)) == (500, 500)
    for i in range(0, 500, 25):
        with Image.open(index.path(i)) as image:
            assert image.size == (index.widths[i], index.heights[i])
