"""Datasets with pictures inside archives, several in each."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.dataset.samples import Sample, StoredFile, collect, digest
from pipeline.dataset.writing import Dataset, write_dataset
from tests.support.images import Picture, make_images

HEADER, PADDING = b"header", b"padding"


def make_archives(folder: Path, *, images: int, shards: int, seed: int = 0) -> Path:
    """A dataset of train/NNN.bin and val/000.bin under folder/shards; return `folder`."""
    pictures = make_images(images, classes=3, size=(40, 32), seed=seed)
    archives = {f"train/{n:03}.bin": pictures[n::shards] for n in range(shards)}
    validation = make_images(7, classes=3, size=(40, 32), seed=seed + 1)
    return write_archives(folder, {"train": archives, "val": {"val/000.bin": validation}})


def write_archives(
    folder: Path, splits: Mapping[str, Mapping[str, Sequence[Picture]]], *, classes: int = 3
) -> Path:
    """Store pictures one after the other in files of these names under folder/shards.

    A file named by several splits contains the pictures of all of them.
    """
    root = folder / "shards"
    rows: dict[str, list[Sample]] = {split: [] for split in splits}
    for split, archives in splits.items():
        for name, pictures in archives.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with (root / name).open("ab") as archive:
                archive.write(HEADER)
                for picture in pictures:
                    content = picture.content
                    place = name, archive.tell(), len(content), picture.label
                    rows[split].append(Sample(*place, *picture.size, digest(content)))
                    archive.write(content + PADDING)
    samples = {
        split: collect(of_split, [stored_file(root, name) for name in splits[split]])
        for split, of_split in rows.items()
    }
    names = tuple(f"class{number}" for number in range(classes))
    write_dataset(folder, Dataset("test", names, "shards", samples))
    return folder


def stored_file(root: Path, name: str) -> StoredFile:
    status = (root / name).stat()
    return StoredFile(name, status.st_size, status.st_mtime_ns)


def spoil(path: Path, at: int) -> None:
    """Change one byte of a file; its size and time of modification stay what they were."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(at)
        (byte,) = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
