"""Small generated datasets of pictures, each pixel determined by a seed."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.dataset.samples import Sample, StoredFile, collect, digest
from pipeline.dataset.writing import Dataset, write_dataset


@dataclass(frozen=True)
class Picture:
    """An image as it is stored; `size` is (width, height) in pixels."""

    name: str
    content: bytes
    size: tuple[int, int]
    label: int = 0


def make_dataset(
    folder: Path,
    *,
    train: int,
    val: int,
    classes: int = 3,
    size: tuple[int, int] = (40, 32),
    seed: int = 0,
) -> Path:
    """Write JPEGs that a network can learn to tell apart, and their index; return `folder`."""
    splits = {
        split: make_images(count, classes=classes, size=size, seed=[seed, number])
        for number, (split, count) in enumerate({"train": train, "val": val}.items())
    }
    return write_pictures(folder, splits, classes=classes)


def make_images(
    count: int, *, classes: int, size: tuple[int, int], seed: int | Sequence[int]
) -> list[Picture]:
    """JPEGs of noise around the colour of their class; classes take turns."""
    random = np.random.default_rng(seed)
    colours = np.random.default_rng(classes).integers(60, 196, (classes, 3))
    width, height = size
    pictures: list[Picture] = []
    for number in range(count):
        label = number % classes
        noise = random.normal(0, 25, (height, width, 3))
        pixels = np.clip(colours[label] + noise, 0, 255).astype(np.uint8)
        pictures.append(Picture(f"{number:05}.JPEG", encode(pixels), size, label))
    return pictures


def encode(pixels: np.ndarray, file_format: str = "JPEG") -> bytes:
    """Compress uint8 pixels of (height, width[, channels])."""
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, file_format)
    return stored.getvalue()


def write_pictures(
    folder: Path, splits: Mapping[str, Sequence[Picture]], *, classes: int = 1
) -> Path:
    """Store each picture in its own file under folder/images, and index them in `folder`."""
    splits_samples = {}
    for split, pictures in splits.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        rows: list[Sample] = []
        files: list[StoredFile] = []
        for picture in pictures:
            file = f"{split}/{picture.name}"
            path = folder / "images" / file
            path.write_bytes(picture.content)
            content, (width, height) = picture.content, picture.size
            rows.append(
                Sample(file, 0, len(content), picture.label, width, height, digest(content))
            )
            files.append(StoredFile(file, len(content), path.stat().st_mtime_ns))
        splits_samples[split] = collect(rows, files)
    names = tuple(f"class{number}" for number in range(classes))
    write_dataset(folder, Dataset("test", names, "images", splits_samples))
    return folder
