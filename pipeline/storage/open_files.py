"""Descriptors of a dataset's files, kept open between reads within the system's limits."""

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
"""Files that one reader keeps open: enough for datasets of a few thousand shards."""
READERS = 2
"""Readers at once in a process: one trains while another evaluates."""
SPARED = 512
"""Descriptors left for everything else in the process."""
LEAST_OPEN = 16


def grant_open_files(wanted: int) -> int:
    """Return how many files a reader may keep open, at most `wanted`.

    Raises the process's soft limit of open files towards the hard one if necessary.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(wanted, MOST_OPEN)
    needed = READERS * wanted + SPARED
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(OSError, ValueError):  # refused: use what is available
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
    """Files open for reading; the `limit` most recently used ones stay open until `close`.

    Thread-safe: no file is closed while a thread reads from it.
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
        """Close all files; no thread may be reading."""
        for descriptor in self._open.values():
            os.close(descriptor.number)
        self._open.clear()

    def _take(self, file: int) -> _Descriptor:
        with self._lock:
            if file in self._open:
                return self._use(file, self._open[file])
        opened = os.open(self._path(file), os.O_RDONLY)  # not under the lock: may be slow
        with self._lock:
            descriptor = self._use(file, self._open.setdefault(file, _Descriptor(opened)))
        if descriptor.number != opened:  # another thread was faster
            os.close(opened)
        return descriptor

    def _use(self, file: int, descriptor: _Descriptor) -> _Descriptor:
        descriptor.users += 1
        self._open.move_to_end(file)
        return descriptor

    def _give_back(self, descriptor: _Descriptor) -> list[int]:
        """Return the descriptors to close: those above the limit that no thread uses."""
        with self._lock:
            descriptor.users -= 1
            surplus = len(self._open) - self._limit
            if surplus <= 0:
                return []
            idle = (file for file, other in self._open.items() if other.users == 0)
            return [self._open.pop(file).number for file in list(islice(idle, surplus))]
