"""Shards written from small datasets, and their content."""

from pathlib import Path

from pipeline.dataset.index import Index
from tests.support.preparing import run

IMAGES_A_SHARD = 8


def write(source: Path, out: Path, *options: object) -> int:
    size = ["--shard-images", IMAGES_A_SHARD]
    return run("shards", source, "--out", out, "--workers", 1, *size, *options)


def tars(out: Path, split: str = "*") -> list[Path]:
    return sorted((out / "shards").glob(f"{split}-*.tar"))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "shards").iterdir()}


def stored(folder: Path, split: str) -> list[tuple[int, bytes]]:
    """Label and bytes of each sample of an index."""
    index = Index.open(folder, split)
    pairs: list[tuple[int, bytes]] = []
    for sample, (offset, size) in enumerate(zip(index.offsets, index.sizes, strict=True)):
        content = index.path(sample).read_bytes()[offset : offset + size]
        pairs.append((int(index.labels[sample]), content))
    return pairs
