"""Descriptors of a dataset's files: kept open between reads, as many as the system grants."""

import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock

MOST_OPEN = 4096
"""Files that one reader keeps open; more would help nobody who reads some thousand shards."""
READERS = 2
"""A process trains with one while it evaluates with another."""
SPARED = 512
"""Descriptors that are left to all else in the process."""
LEAST_OPEN = 16


def grant_open_files(wanted: int) -> int:
    """Return how many files a reader may keep open, at most `wanted`.

    The process's soft limit of open files is raised towards the hard one if that is needed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(wanted, MOST_OPEN)
    needed = READERS * wanted + SPARED
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(OSError, ValueError):  # refused: what there is must do
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
            soft = needed
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(LEAST_OPEN, (soft - SPARED) // READERS))


@dataclass(slots=True)
class _Descriptor:
    number: int
    users: int = 0


class OpenFiles:
    """Files open for reading; the `limit` that were used last stay open until `close`.

    Safe to use from several threads: none is closed while somebody reads from it.
    """

    def __init__(self, path: Callable[[int], Path], limit: int) -> None:
        self._path, self._limit = path, limit
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def lend(self, file: int) -> Generator[int]:
        """Yield a descriptor of file number `file`; raise `OSError` if it cannot be opened."""
        descriptor = self._take(file)
        try:
            yield descriptor.number
        finally:
            for number in self._give_back(descriptor):
                os.close(number)

    def close(self) -> None:
        """Close all of them; nobody may be reading."""
        for descriptor in self._open.values():
            os.close(descriptor.number)
        self._open.clear()

    def _take(self, file: int) -> _Descriptor:
        with self._lock:
            if file in self._open:
                return self._use(file, self._open[file])
        opened = os.open(self._path(file), os.O_RDONLY)  # without the lock: it may take long
        with self._lock:
            descriptor = self._use(file, self._open.setdefault(file, _Descriptor(opened)))
        if descriptor.number != opened:  # another thread was quicker
            os.close(opened)
        return descriptor

    def _use(self, file: int, descriptor: _Descriptor) -> _Descriptor:
        descriptor.users += 1
        self._open.move_to_end(file)
        return descriptor

    def _give_back(self, descriptor: _Descriptor) -> list[int]:
        """Return what is to be closed: whatever is over the limit and in nobody's use."""
        with self._lock:
            descriptor.users -= 1
            surplus = len(self._open) - self._limit
            if surplus <= 0:
                return []
            idle = (file for file, other in self._open.items() if other.users == 0)
            return [self._open.pop(file).number for file in list(islice(idle, surplus))]
