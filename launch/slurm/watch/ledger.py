"""What a watcher has done, on disk: another one, started by cron, does not do it again."""

import fcntl
import json
import time
from collections.abc import Generator, KeysView
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.system.durable import write_whole

FILE = ".watch.json"
LOCK = ".watch.lock"
KEPT_SECONDS = 90 * 24 * 3600.0


class Memory:
    """Keys of what was done, with the time of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, float] = {}
        if path.exists():
            self._done = TypeAdapter(dict[str, float]).validate_json(path.read_bytes())

    def keys(self) -> KeysView[str]:
        """Return what was done."""
        return self._done.keys()

    def add(self, key: str) -> None:
        """Note that something was done, and return once that is on disk."""
        now = time.time()
        self._done[key] = now
        kept = {each: at for each, at in self._done.items() if now - at < KEPT_SECONDS}
        self._done = kept
        write_whole(self._path, json.dumps(kept, indent=0).encode() + b"\n")


@contextmanager
def hold_memory(folder: Path) -> Generator[Memory]:
    """Yield the memory of `folder`, which no other watcher has during the block.

    Raises `ValueError` if another one has it.
    """
    try:
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise ValueError(f"{folder / LOCK} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another launch/watch.py watches {folder} already") from error
        yield Memory(folder / FILE)
