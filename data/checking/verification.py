"""A split as it lies on disk, held against its index: every image read, and decoded if asked."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.checking.damaged_files import FileFault, judge_files
from data.checking.decoding import undecodable
from data.checking.examination import SizeLimits, StoredImage, drop_ordinary
from data.checking.flaws import Flaw
from data.checking.portions import PORTION_IMAGES, PortionReader
from data.indexing.progress import Advance
from pipeline.dataset.index import Index
from pipeline.storage.files import FileState, file_states


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about a split."""

    index: Index
    flaws: list[Flaw]
    """By sample number; at most one fault a sample."""
    files: list[FileFault]
    states: list[FileState]
    """The files as they were before any was read."""
    kinds: Counter[str]
    """Images of each format; empty unless they were decoded."""

    @property
    def faulty_images(self) -> int:
        """Images that cannot be used."""
        return sum(flaw.is_fault for flaw in self.flaws)

    @property
    def is_sound(self) -> bool:
        """Whether all is as it was indexed."""
        return not self.files and not self.faulty_images

    def samples_with(self, kinds: frozenset[str]) -> NDArray[np.int64]:
        """Return the samples, rising, that have a fault or a finding among `kinds`."""
        return np.unique(
            np.array([f.sample for f in self.flaws if f.is_fault or f.kind in kinds], np.int64)
        )


def verify_split(index: Index, *, decode: bool, workers: int, advance: Advance) -> Verdict:
    """Read every image, in the order in which they lie on disk; with `decode`, decode them too.

    `advance` is called with the bytes of the images that were dealt with.
    """
    states = file_states(index.root, index.files.to_pylist())
    reader = PortionReader(index, states, SizeLimits.of(index) if decode else None)
    found: list[Flaw] = []
    kinds: Counter[str] = Counter()

    def to_decode() -> Iterator[list[StoredImage]]:
        for portion in reader.read_all(workers):
            found.extend(portion.flaws)
            kinds.update(portion.kinds)
            advance(portion.size)
            if portion.images:
                yield portion.images

    batches = to_decode()
    corrupt = list(undecodable(batches, most=PORTION_IMAGES, threads=workers)) if decode else []
    for _ in batches:  # without decoding, nobody has asked for them yet
        pass
    faults, flaws = judge_files(index, drop_ordinary([*found, *corrupt], kinds), states)
    flaws.sort(key=lambda flaw: (flaw.sample, not flaw.is_fault))
    return Verdict(index, flaws, faults, states, kinds)
