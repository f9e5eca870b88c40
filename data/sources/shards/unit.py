"""One WebDataset shard: a tar in which each image is followed by its label, written in one go.

Its bytes depend on the images, their labels and the way of compressing alone: no times, owners or
machines go into it, and no library's idea of a tar.
"""

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedWriter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.formats.image_header import image_size
from data.formats.image_kind import image_kind
from data.formats.tar import BLOCK
from data.indexing.units import BadImage, Found
from data.sources.shards.reencoding import Reencoding, encoder
from pipeline.dataset.index import Index
from pipeline.dataset.order import permute
from pipeline.dataset.samples import Sample, StoredFile, collect, digest, file_state
from pipeline.system.durable import sync_folder

SHARDS = "shards"
LAYOUT = 1
"""Raised whenever the same images would be written as other bytes."""
ORDER_SEED = 0
KEY_DIGITS = 9
SIZE_LIMIT = 8**11
"""Bytes that a member's size cannot reach, with its eleven octal digits."""
END = bytes(2 * BLOCK)
EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "bmp": "bmp",
    "tiff": "tif",
    "ppm": "ppm",
}
"""What a name ends in, by the kind of image."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The dataset whose images are written: its folder, where its files lie, what it holds."""

    folder: Path
    root: Path | None
    """None where its manifest tells."""
    fingerprint: str

    def index(self, split: str) -> Index:
        """Open a split; raise `ValueError` if it is not the one that was asked for any more."""
        return _open(self, split)


@dataclass(frozen=True, slots=True)
class ShardUnit:
    """Samples `number * images` and on, in the shards' order; to read it is to write its shard."""

    origin: Origin
    split: str
    number: int
    images: int
    """Samples of every shard of the split but the last."""
    reencoding: Reencoding | None
    """None where the images keep their bytes."""
    out: Path
    state: str
    """Stands for the files that the images lie in, as they are now."""
    size: int
    """Bytes of the images to read."""

    @property
    def file(self) -> str:
        """The shard's path below `out`."""
        return f"{SHARDS}/{self.split}-{self.number:06d}.tar"

    @property
    def key(self) -> str:
        """See `Unit`."""
        how = ["verbatim"] if self.reencoding is None else [str(self.reencoding), encoder()]
        which = [self.origin.fingerprint, self.split, self.number, self.images, self.state]
        return json.dumps(["shard", LAYOUT, *which, *how])

    def read(self) -> Found:
        """Write the shard, whole or not at all; images that cannot be used are left out of it."""
        index = self.origin.index(self.split)
        rows: list[Sample] = []
        bad: list[BadImage] = []
        with _written_whole(self.out / self.file) as stream:
            for position, sample in self._samples(len(index)):
                try:
                    content, size = self._content(index, sample)
                    name = f"{position:0{KEY_DIGITS}d}.{_extension(content)}"
                except (ValueError, OSError) as error:
                    bad.append(BadImage(_place(index, sample), _reason(error)))
                    continue
                label = int(index.labels[sample])
                offset = _add(stream, name, content)
                _add(stream, f"{position:0{KEY_DIGITS}d}.cls", str(label).encode())
                rows.append(Sample(self.file, offset, len(content), label, *size, digest(content)))
            stream.write(END)
        stored = StoredFile(self.file, *file_state(self.out / self.file))
        return Found(collect(rows, [stored] if rows else []), tuple(bad))

    def _samples(self, count: int) -> Iterator[tuple[int, int]]:
        """Pairs of a position in the shards' order and the number of the sample there."""
        first = self.number * self.images
        numbers = stored_order(count, first, first + self.images)
        return zip(range(first, first + self.images), numbers.tolist(), strict=False)

    def _content(self, index: Index, sample: int) -> tuple[bytes, tuple[int, int]]:
        content = _read(index, sample)
        if self.reencoding is not None:
            content = self.reencoding.apply(content)
        return content, image_size(content)


def stored_order(count: int, first: int, end: int) -> NDArray[np.int64]:
    """Return the samples that come at positions `first` to `end` of the shards of `count` samples.

    The order is pseudo-random, so that any stretch of it shows many classes, and always the same.
    """
    positions = np.arange(first, min(end, count), dtype=np.int64)
    return permute(positions, count, seed=ORDER_SEED, epoch=0)


def shard_bytes(sizes: NDArray[np.int64]) -> int:
    """Return the exact size of a shard of images of these sizes in bytes."""
    padded = -(-sizes // BLOCK) * BLOCK
    return int(padded.sum()) + 3 * BLOCK * len(sizes) + len(END)


@lru_cache(maxsize=4)
def _open(origin: Origin, split: str) -> Index:
    index = Index.open(origin.folder, split, origin.root)
    if index.manifest.fingerprint != origin.fingerprint:
        raise ValueError(f"{origin.folder} was prepared anew meanwhile; give the command again")
    return index


@contextmanager
def _written_whole(path: Path) -> Generator[BufferedWriter, None, None]:
    """Open a file that appears at `path`, and stays after a power cut, if the body succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _add(stream: BufferedWriter, name: str, content: bytes) -> int:
    """Append a member to a tar; return the offset of its content."""
    stream.write(_header(name, len(content)))
    offset = stream.tell()
    stream.write(content)
    stream.write(bytes(-len(content) % BLOCK))
    return offset


def _header(name: str, size: int) -> bytes:
    """A USTAR header: a plain file that anybody may read, of nobody and of 1970."""
    assert size < SIZE_LIMIT, "no image that fits in memory here is larger"
    fields = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0" * 2,  # user, group
        b"%011o\0" % size,
        b"00000000000\0",  # time of modification
        b" " * 8,  # the checksum, while it is computed
        b"0".ljust(101, b"\0"),  # a plain file, no link
        b"ustar\x0000".ljust(72, b"\0"),  # no names of user and group
        b"0000000\0" * 2,  # no device
        bytes(167),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _read(index: Index, sample: int) -> bytes:
    """Return a sample's bytes; raise `ValueError` unless they are those that were indexed."""
    with index.path(sample).open("rb") as stream:
        stream.seek(int(index.offsets[sample]))
        content = stream.read(int(index.sizes[sample]))
    if digest(content) != index.digests[sample].tobytes():
        raise ValueError("its content is not what was indexed; restore it, or index it again")
    return content


def _extension(content: bytes) -> str:
    kind = image_kind(content)
    if kind not in EXTENSIONS:
        raise ValueError(f"is no image of a kind that goes into shards ({', '.join(EXTENSIONS)})")
    return EXTENSIONS[kind]


def _place(index: Index, sample: int) -> str:
    offset = int(index.offsets[sample])
    return f"{index.path(sample)}" + (f" at byte {offset}" if offset else "")


def _reason(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return str(error)
