"""Damage to whole files: missing, truncated or replaced."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.checking.flaws import Flaw
from pipeline.dataset.index import Index
from pipeline.storage.files import FileState
from pipeline.system.command import plural

Damage = Literal["missing", "unreadable", "truncated", "replaced", "longer"]
NOT_THERE = frozenset({os.strerror(errno.ENOENT), os.strerror(errno.ENOTDIR)})
"""The states of files that are missing."""
WAYS_OF_REPLACEMENT = frozenset({"changed", "truncated"})
"""The flaws of an image if its file is replaced by another."""


@dataclass(frozen=True, slots=True)
class FileFault:
    """Damage to a file; `size` in bytes is None if it is not known."""

    file: str
    damage: Damage
    indexed_size: int
    size: int | None
    images: int
    """Images of the split in this file."""
    faulty: int
    """How many of them are lost."""

    @property
    def reason(self) -> str:
        """The damage in words."""
        match self.damage:
            case "missing":
                what = "missing"
            case "unreadable":
                what = "cannot be read"
            case "truncated":
                lost = self.indexed_size - (self.size or 0)
                what = f"truncated: {lost:,} of {self.indexed_size:,} bytes are missing"
            case "replaced":
                what = "replaced: none of its images matches the index"
            case "longer":
                more = (self.size or 0) - self.indexed_size
                what = f"{more:,} bytes longer than the indexed {self.indexed_size:,}"
        return f"{what}; {self.faulty:,} of {plural(self.images, 'image')} lost"


def judge_files(
    index: Index, flaws: Sequence[Flaw], states: Sequence[FileState]
) -> tuple[list[FileFault], list[Flaw]]:
    """Return the damaged files, and the flaws, updated for files that were replaced.

    A file with a single image is listed only if it is merely longer than it was: all other damage
    is a flaw of the image.
    """
    images = np.bincount(index.file_ids, minlength=len(index.files))
    faulty = _count(index, [flaw.sample for flaw in flaws if flaw.is_fault])
    gone = _count(index, [flaw.sample for flaw in flaws if flaw.kind in WAYS_OF_REPLACEMENT])
    changed = _count(index, [flaw.sample for flaw in flaws if flaw.kind == "changed"])
    replaced = (images > 1) & (gone == images) & (changed > 0)
    found: list[FileFault] = []
    for file, (state, size) in enumerate(zip(states, index.file_sizes.tolist(), strict=True)):
        damage = _damage(state, size, replaced=bool(replaced[file]))
        if damage and (images[file] > 1 or (damage == "longer" and not faulty[file])):
            now = None if isinstance(state, str) else state[0]
            name = index.files[file].as_py()
            counts = int(images[file]), int(faulty[file])
            found.append(FileFault(name, damage, size, now, *counts))
    return found, [_updated(flaw, index, replaced) for flaw in flaws]


def _damage(state: FileState, indexed_size: int, *, replaced: bool) -> Damage | None:
    if isinstance(state, str):
        return "missing" if state in NOT_THERE else "unreadable"
    if replaced:
        return "replaced"
    if state[0] == indexed_size:
        return None
    return "truncated" if state[0] < indexed_size else "longer"


def _count(index: Index, samples: Sequence[int]) -> NDArray[np.int64]:
    """Count samples by file."""
    files = index.file_ids[np.array(samples, np.int64)]
    return np.bincount(files, minlength=len(index.files))


def _updated(flaw: Flaw, index: Index, replaced: NDArray[np.bool_]) -> Flaw:
    if flaw.kind in WAYS_OF_REPLACEMENT and replaced[index.file_ids[flaw.sample]]:
        return replace(flaw, kind="replaced")
    return flaw
