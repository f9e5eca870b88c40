"""Images on disk to prepare datasets from, and the program that does it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data import prepare
from pipeline.dataset.index import MANIFEST, Index, split_files

ROOT = Path(__file__).parents[2]
INDEX_FILES = {MANIFEST, *split_files("train"), *split_files("val")}
"""All files of a dataset that is indexed in place."""


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


def make_source(root: Path) -> Path:
    """Three classes, two of them in validation; nested folders, capital letters, a text file."""
    names = ["train/ant/1.JPEG", "train/ant/deep/er/2.jpg", "train/Bee/3.jpeg", "train/cat/4.jpg"]
    for seed, name in enumerate([*names, "val/ant/5.JPG", "val/cat/6.jpg"]):
        save(root / name, picture(seed))
    (root / "train/ant/readme.txt").write_text("not an image")
    return root


def contents(index: Index) -> list[tuple[int, bytes]]:
    return [(int(index.labels[i]), index.path(i).read_bytes()) for i in range(len(index))]
