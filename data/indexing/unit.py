"""Units of reading: pieces of a source, each read once, by any process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.dataset.samples import Samples


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be used: its file, or archive and member, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnitContent:
    """The images of a unit."""

    samples: Samples
    bad: tuple[BadImage, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict[str, int])
    """Files that are neither images nor labels: their number, by the ending of their names."""


class ReadingUnit(Protocol):
    """Some files, or a part of one; it can be pickled and read by another process."""

    @property
    def key(self) -> str:
        """Identifies what is read: units with the same key have the same content.

        It names every file with its size and time of modification, and everything that decides the
        labels.
        """
        ...

    @property
    def size(self) -> int:
        """Bytes to read."""
        ...

    def read(self) -> UnitContent:
        """Read it once and in order; raises `ValueError` if its container is damaged."""
        ...
