"""One WebDataset shard: a tar in which each image is followed by its label.

Its bytes depend only on the images, their labels and how they are compressed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.formats.image_header import image_kind, image_size
from data.formats.tar import BLOCK
from data.formats.tar_writer import END, TarWriter
from data.indexing.unit import BadImage, UnitContent
from data.sources.shards.reencoding import Reencoding, encoder
from pipeline.dataset.index import Index
from pipeline.dataset.order import permute
from pipeline.dataset.samples import Sample, StoredFile, collect, digest, file_state
from pipeline.system.durable import replacing

SHARDS = "shards"
LAYOUT = 1
"""Increase it when the same images would be written as other bytes."""
ORDER_SEED = 0
KEY_DIGITS = 9
EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "bmp": "bmp",
    "tiff": "tif",
    "ppm": "ppm",
}
"""The ending of a name, by the format of the image."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The dataset whose images are written: its folder, the root of its files, its fingerprint."""

    folder: Path
    root: Path | None
    """None for the root in its manifest."""
    fingerprint: str

    def index(self, split: str) -> Index:
        """Open a split; raises `ValueError` if the dataset has changed since."""
        return _open(self, split)


@dataclass(frozen=True, slots=True)
class ShardUnit:
    """The samples from position `number * images`; reading them writes their shard."""

    origin: Origin
    split: str
    number: int
    images: int
    """Samples of each shard of the split; the last may have fewer."""
    reencoding: Reencoding | None
    """None if the images keep their bytes."""
    out: Path
    state: str
    """Identifies the present state of the files that the images lie in."""
    size: int
    """Bytes of images to read."""

    @property
    def file(self) -> str:
        """The path of the shard, relative to `out`."""
        return f"{SHARDS}/{self.split}-{self.number:06d}.tar"

    @property
    def key(self) -> str:
        """See `ReadingUnit`."""
        how = ["verbatim"] if self.reencoding is None else [str(self.reencoding), encoder()]
        which = [self.origin.fingerprint, self.split, self.number, self.images, self.state]
        return json.dumps(["shard", LAYOUT, *which, *how])

    def read(self) -> UnitContent:
        """Write the shard, completely or not at all, without the images that cannot be used."""
        index = self.origin.index(self.split)
        rows: list[Sample] = []
        bad: list[BadImage] = []
        with (
            replacing(self.out / self.file) as temporary,
            temporary.open("wb") as stream,
        ):
            tar = TarWriter(stream)
            for position, sample in self._samples(len(index)):
                try:
                    content, size = self._content(index, sample)
                    name = f"{position:0{KEY_DIGITS}d}.{_extension(content)}"
                except (ValueError, OSError) as error:
                    bad.append(BadImage(_place(index, sample), _reason(error)))
                    continue
                label = int(index.labels[sample])
                offset = tar.add(name, content)
                tar.add(f"{position:0{KEY_DIGITS}d}.cls", str(label).encode())
                rows.append(Sample(self.file, offset, len(content), label, *size, digest(content)))
            tar.finish()
        stored = StoredFile(self.file, *file_state(self.out / self.file))
        return UnitContent(collect(rows, [stored] if rows else []), tuple(bad))

    def _samples(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield each position in the shards with the number of its sample."""
        first = self.number * self.images
        numbers = stored_order(count, first, first + self.images)
        return zip(range(first, first + self.images), numbers.tolist(), strict=False)

    def _content(self, index: Index, sample: int) -> tuple[bytes, tuple[int, int]]:
        content = _read(index, sample)
        if self.reencoding is not None:
            content = self.reencoding.apply(content)
        return content, image_size(content)


def stored_order(count: int, first: int, end: int) -> NDArray[np.int64]:
    """Return the samples at positions `first` to `end` of the shards of `count` samples.

    The order is pseudo-random, so that neighbours have many classes, and always the same.
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
        raise ValueError(f"{origin.folder} was prepared again meanwhile; run the command again")
    return index


def _read(index: Index, sample: int) -> bytes:
    """Return the bytes of a sample; raises `ValueError` unless they match the index."""
    with index.path(sample).open("rb") as stream:
        stream.seek(int(index.offsets[sample]))
        content = stream.read(int(index.sizes[sample]))
    if digest(content) != index.digests[sample].tobytes():
        raise ValueError("its content does not match the index; restore it, or index it again")
    return content


def _extension(content: bytes) -> str:
    kind = image_kind(content)
    if kind not in EXTENSIONS:
        raise ValueError(f"not in a format for shards ({', '.join(EXTENSIONS)})")
    return EXTENSIONS[kind]


def _place(index: Index, sample: int) -> str:
    offset = int(index.offsets[sample])
    return f"{index.path(sample)}" + (f" at byte {offset}" if offset else "")


def _reason(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return str(error)
