"""Images inside archives: the archives, and the samples in each."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.formats.image_header import image_size
from data.formats.tar import TarMember
from data.indexing.paths import require_utf8, root_for
from data.indexing.unit import BadImage, UnitContent
from pipeline.dataset.samples import DIGEST_BYTES, Samples, StoredFile, digest

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive in its state when listed; `file.name` is relative to the root of the dataset."""

    path: Path
    file: StoredFile

    @property
    def key(self) -> list[str | int]:
        """Identifies the archive and its state."""
        return [str(self.path), self.file.name, self.file.size, self.file.mtime_ns]


class GatheredImages:
    """The samples of one archive, in order."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._rows: list[tuple[int, int, int, int]] = []
        self._digests: list[bytes] = []
        self._bad: list[BadImage] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, member: TarMember, content: memoryview) -> bool:
        """Add an image; if it cannot be used, note the reason and return False."""
        try:
            width, height = image_size(content)
        except ValueError as error:
            self._bad.append(BadImage(f"{self._archive.path}, {member.name}", str(error)))
            return False
        self._rows.append((member.offset, member.size, width, height))
        self._digests.append(digest(content))
        return True

    def content(
        self, labels: Sequence[int] | int, ignored: Mapping[str, int] | None = None
    ) -> UnitContent:
        """Return the samples; `labels` is one for all, or one for each image that was added."""
        rows = np.array(self._rows, np.int64).reshape(-1, 4)
        columns = {
            "file": np.zeros(len(rows), np.int32),
            "offset": rows[:, 0],
            "size": rows[:, 1],
            "label": np.broadcast_to(np.array(labels, np.int32), len(rows)),
            "width": rows[:, 2].astype(np.int32),
            "height": rows[:, 3].astype(np.int32),
        }
        digests = np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, DIGEST_BYTES)
        files = (self._archive.file,) if self._rows else ()
        return UnitContent(Samples(files, columns, digests), tuple(self._bad), ignored or {})


def find_archives(paths: Sequence[Path], out: Path) -> tuple[str, list[Archive]]:
    """Return the root of an index at `out`, and the archives relative to it.

    Raises `ValueError` for a path that is missing, is not a plain file or is given twice.
    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} does not exist; give the path of the archive")
        if not path.is_file():
            raise ValueError(f"{path} is not a plain file; give the archive itself")
    resolved = [path.resolve() for path in paths]
    times = Counter(resolved)
    for given, path in zip(paths, resolved, strict=True):
        require_utf8(str(path))
        if times[path] > 1:
            raise ValueError(f"{given} is given twice; give each archive once")
    parent = Path(os.path.commonpath([path.parent for path in resolved]))
    return root_for(parent, out), [_archive(path, parent) for path in resolved]


def expand(patterns: Iterable[str]) -> list[Path]:
    """Return the files that patterns such as `train-{000..127}.tar` or `val-*.tar` name, in order.

    Raises `ValueError` for a pattern that matches nothing.
    """
    paths: list[Path] = []
    for pattern in patterns:
        for name in _expand_ranges(pattern):
            matches = _matches(Path(name))
            if not matches:
                raise ValueError(f"{name} does not exist; quote the pattern, and check its range")
            paths += matches
    return paths


def _matches(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    anchor = path.anchor or "."
    return sorted(Path(anchor).glob(str(path.relative_to(path.anchor))))


def _archive(path: Path, parent: Path) -> Archive:
    status = path.stat()
    name = str(path.relative_to(parent))
    return Archive(path, StoredFile(name, status.st_size, status.st_mtime_ns))


def _expand_ranges(pattern: str) -> Iterator[str]:
    found = RANGE.search(pattern)
    if not found:
        yield pattern
        return
    first, last = found.groups()
    if int(first) > int(last):
        raise ValueError(f"{pattern}: {found[0]} counts down; give the smaller number first")
    before, after = pattern[: found.start()], pattern[found.end() :]
    for number in range(int(first), int(last) + 1):
        yield from _expand_ranges(f"{before}{number:0{len(first)}}{after}")
