"""Which images go into which shard, and how."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from data.indexing.listing import Listing
from data.sources.shards.reencoding import Reencoding, encoder
from data.sources.shards.shard import LAYOUT, Origin, ShardUnit, stored_order
from pipeline.dataset.index import Index, Manifest
from pipeline.dataset.samples import file_state


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The shards of a dataset."""

    origin: Origin
    manifest: Manifest
    images: int
    """Images in a shard."""
    reencodings: Mapping[str, Reencoding | None]
    """For each split; None if the images keep their bytes."""

    def identity(self) -> bytes:
        """Return what decides the bytes of all shards, if all images can be used."""
        reencoded = {split: how and asdict(how) for split, how in self.reencodings.items()}
        content = {
            "fingerprint": self.origin.fingerprint,
            "images_per_shard": self.images,
            "reencoded": reencoded,
            "encoder": encoder() if any(reencoded.values()) else None,
            "layout": LAYOUT,
        }
        return json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"

    def name(self) -> str:
        """Return the name of the dataset, which includes how its images were compressed again."""
        ways = {split: str(how) for split, how in self.reencodings.items() if how}
        if len(ways) == len(self.reencodings):
            described = [*dict.fromkeys(ways.values())]
        else:
            described = [f"{split}: {way}" for split, way in ways.items()]
        return " ".join([self.manifest.name, "in shards", *(f"({way})" for way in described)])

    def has_images_in(self, folder: Path) -> bool:
        """Return whether an image of the dataset is in `folder`."""
        inside = f"{folder.resolve()}/"
        indexes = [self.origin.index(split) for split in self.manifest.samples]
        return any(
            f"{index.root.resolve()}/{name}".startswith(inside)
            for index in indexes
            for name in index.files.to_pylist()
        )

    def units(self, out: Path) -> dict[str, list[ShardUnit]]:
        """Return the shards of each split; raises `ValueError` if the dataset cannot be read."""
        return {split: self._split_units(split, out) for split in self.reencodings}

    def listing(self, units: Mapping[str, list[ShardUnit]]) -> Listing:
        """Return these shards as what there is to read."""
        notes: list[str] = []
        if self.reencodings.get("val"):
            notes.append(
                "validation images are compressed again, too, which changes what is evaluated; "
                "--splits train leaves them as they are"
            )
        return Listing(
            name=self.name(),
            root=".",
            splits=units,
            classes=self.manifest.classes,
            class_names=self.manifest.class_names,
            notes=tuple(notes),
        )

    def _split_units(self, split: str, out: Path) -> list[ShardUnit]:
        index = self.origin.index(split)
        states = _file_states(index)
        return [
            ShardUnit(
                origin=self.origin,
                split=split,
                number=number,
                images=self.images,
                reencoding=self.reencodings[split],
                out=out,
                state=xxhash.xxh3_128_hexdigest(
                    states[np.unique(index.file_ids[samples])].tobytes()
                ),
                size=int(index.sizes[samples].sum()),
            )
            for number, samples in enumerate(_by_shard(len(index), self.images))
        ]


def _by_shard(count: int, images: int) -> Iterator[NDArray[np.int64]]:
    return (stored_order(count, first, first + images) for first in range(0, count, images))


def _file_states(index: Index) -> NDArray[np.int64]:
    """Return size and time of modification of each file, -1 if it is missing: int64 (files, 2)."""
    states = np.full((len(index.files), 2), -1, np.int64)
    for number, name in enumerate(index.files.to_pylist()):
        try:
            states[number] = file_state(index.root / name)
        except OSError:
            continue
    return states
