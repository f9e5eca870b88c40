"""A record on disk of a watcher's actions: the next one (started by cron) does not repeat them."""

import json
import time
from collections.abc import Generator, KeysView
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.system.durable import write_whole
from pipeline.system.locks import open_locked

FILE = ".watch.json"
LOCK = ".watch.lock"
KEPT_SECONDS = 90 * 24 * 3600.0


class Ledger:
    """The keys of past actions, each with its time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, float] = {}
        if path.exists():
            self._done = TypeAdapter(dict[str, float]).validate_json(path.read_bytes())

    def keys(self) -> KeysView[str]:
        """Return the keys of past actions."""
        return self._done.keys()

    def add(self, key: str) -> None:
        """Record an action; return once the record is on disk."""
        now = time.time()
        self._done[key] = now
        self._done = {each: at for each, at in self._done.items() if now - at < KEPT_SECONDS}
        write_whole(self._path, json.dumps(self._done, indent=0).encode() + b"\n")


@contextmanager
def hold_ledger(folder: Path) -> Generator[Ledger]:
    """Yield the ledger of `folder`, locked during the block.

    Raises `ValueError` if another watcher has it.
    """
    try:
        lock = open_locked(folder / LOCK)
    except OSError as error:
        raise ValueError(f"cannot write {folder / LOCK}: {error.strerror}") from error
    if lock is None:
        raise ValueError(f"another launch/watch.py is already watching {folder}")
    with lock:
        yield Ledger(folder / FILE)
