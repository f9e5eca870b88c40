"""Tar shards: images of a Parquet file that do not lie in it as they are, copied to a tar.

The same images give the same bytes; a shard is there as a whole or not at all.
"""

import os
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path
from typing import BinaryIO

from data.indexing.store import IMAGES, MARKER
from pipeline.dataset.index import MANIFEST
from pipeline.system.durable import sync_folder

SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"BM": "bmp"}
"""How files of some formats begin, and what they are called."""


class ParquetShard:
    """A tar that is being written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, number: int, content: bytes) -> int:
        """Append an image, named by its number; return the offset in the tar where it begins."""
        kinds = (suffix for start, suffix in SUFFIXES.items() if content.startswith(start))
        member = tarfile.TarInfo(f"{number:06d}.{next(kinds, 'image')}")
        member.size = len(content)
        self._stream.write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self._stream.tell()
        self._stream.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset

    def finish(self) -> None:
        """Write what ends a tar, and return once all of it is on disk."""
        self._stream.write(bytes(2 * tarfile.BLOCKSIZE))
        self._stream.flush()
        os.fsync(self._stream.fileno())


def refuse_foreign_images(out: Path) -> None:
    """Raise `ValueError` if `out/images` was not made by us: nothing is written into it."""
    folder = out / IMAGES
    ours = folder.is_dir() and ((folder / MARKER).exists() or not any(folder.iterdir()))
    if os.path.lexists(folder) and not ours:
        raise ValueError(f"{folder} was not made by prepare.py; move it, or choose another --out")


@contextmanager
def open_shard(out: Path, name: str) -> Generator[ParquetShard, None, None]:
    """Yield a shard that becomes `out/images/name` if, and only if, the body succeeds.

    If that exists with other bytes, the dataset that it belonged to is void: its manifest goes.
    """
    path = out / IMAGES / name
    _make_folder(path.parent, out)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            shard = ParquetShard(stream)
            yield shard
            shard.finish()
        if not (path.exists() and cmp(temporary, path, shallow=False)):
            if path.exists():
                (out / MANIFEST).unlink(missing_ok=True)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path, out: Path) -> None:
    images = out / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    (images / MARKER).write_text("Written by data/prepare.py, which may replace this folder.\n")
    folder.mkdir(parents=True, exist_ok=True)
