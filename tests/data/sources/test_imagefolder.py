"""Class folders are indexed in place, exactly as they are on disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from data.formats.unpacking import unpack
from pipeline.dataset.index import Index, read_manifest
from tests.support.preparing import (
    INDEX_FILES,
    ROOT,
    contents,
    folder,
    make_source,
    picture,
    run,
    save,
)

IMAGENET_SAMPLE = ROOT.parent / "shared" / "data" / "imagenet-sample.tar"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


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
    assert made == INDEX_FILES
    said = capsys.readouterr().out
    assert "1 file ignored, not named like images: train/ant/readme.txt" in said
    size = Index.open(tmp_path / "out", "train").sizes.sum() / 1000
    assert f"  train           4 images {f'{size:.1f} KB':>10}\n" in said


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
        assert contents(ours) == contents(theirs), "sample numbers mean the same images"


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


def test_index_and_images_move_together_if_one_contains_the_other(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(source)
    for out, root in ((source / "a/b", "../.."), (source, "."), (tmp_path, "source")):
        assert folder(tmp_path / "link", out) == 0
        assert read_manifest(out).root == root
        assert len(contents(Index.open(out, "train"))) == 4
    assert folder(source, tmp_path / "apart/x") == 0
    assert Path(read_manifest(tmp_path / "apart/x").root) == source.resolve()


def test_links_are_followed_but_never_in_circles(source: Path, tmp_path: Path) -> None:
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


@pytest.mark.slow
@pytest.mark.skipif(not IMAGENET_SAMPLE.exists(), reason="needs the sample of real images")
def test_real_images_have_the_size_in_their_headers(tmp_path: Path) -> None:
    unpack(IMAGENET_SAMPLE, tmp_path)
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
