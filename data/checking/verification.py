"""A split compared with its index: every image is read, and decoded on request."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.checking.damaged_files import FileFault, judge_files
from data.checking.examination import SizeLimits, StoredImage, drop_ordinary
from data.checking.flaws import Flaw
from data.checking.portions import PORTION_IMAGES, PortionReader
from pipeline.dataset.index import Index
from pipeline.storage.files import FileState, file_states
from pipeline.system.progress import Advance


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a split."""

    index: Index
    flaws: list[Flaw]
    """In the order of the samples, which have at most one fault each."""
    files: list[FileFault]
    states: list[FileState]
    """The files as they were before reading."""
    kinds: Counter[str]
    """Number of images in each format; empty unless they were decoded."""

    @property
    def faulty_images(self) -> int:
        """Images that cannot be used."""
        return sum(flaw.is_fault for flaw in self.flaws)

    @property
    def is_sound(self) -> bool:
        """Whether everything matches the index."""
        return not self.files and not self.faulty_images

    def samples_with(self, kinds: frozenset[str]) -> NDArray[np.int64]:
        """Return the samples, in order, that have a fault or a finding in `kinds`."""
        return np.unique(
            np.array([f.sample for f in self.flaws if f.is_fault or f.kind in kinds], np.int64)
        )


def verify_split(index: Index, *, decode: bool, workers: int, advance: Advance) -> Verdict:
    """Read every image, in the order on disk; with `decode`, also decode them.

    `advance` is called with the bytes of the images that are done.
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
    corrupt: list[Flaw] = []
    if decode:
        from data.checking.decoding import unusable

        corrupt += unusable(index, batches, most=PORTION_IMAGES, threads=workers)
    for _ in batches:  # without decoding, they have not been read yet
        pass
    faults, flaws = judge_files(index, drop_ordinary([*found, *corrupt], kinds), states)
    flaws.sort(key=lambda flaw: (flaw.sample, not flaw.is_fault))
    return Verdict(index, flaws, faults, states, kinds)
