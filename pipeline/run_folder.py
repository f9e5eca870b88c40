"""A run's own folder: found or made, and held by one run at a time."""

import fcntl
import json
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from pipeline.config.load import dump
from pipeline.config.schema import Config
from pipeline.durable import write_whole

CONFIG_FILE = "config.yaml"
RESULT = "result.json"
LOCK = "lock"


@contextmanager
def hold_run_folder(config: Config) -> Generator[Path]:
    """Yield the folder of this run, locked for the length of the block.

    It is `run_dir` if given, else an unfinished run of just this configuration under `runs_dir`
    that nobody holds, else a new folder. The lock goes with the process, however it ends.
    Raises `ValueError` if `run_dir` belongs to another configuration or a running process.
    """
    text = dump(config)
    if config.run_dir:
        folder, lock = _claim(config.run_dir, text)
    else:
        folder, lock = _find_or_make(text, config.name, config.runs_dir)
    try:
        if not (folder / CONFIG_FILE).exists():
            write_whole(folder / CONFIG_FILE, text.encode())
        (folder / "checkpoints").mkdir(exist_ok=True)
        yield folder
    finally:
        lock.close()


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None if it is not finished."""
    with suppress(FileNotFoundError):
        return json.loads((folder / RESULT).read_text())
    return None


def _claim(folder: Path, config_text: str) -> tuple[Path, TextIO]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError as error:
        raise ValueError(f"run_dir={folder} cannot be made or locked: {error.strerror}") from error
    if lock is None:
        raise ValueError(f"run_dir={folder} is in use by a running process; wait for it or stop it")
    if (folder / CONFIG_FILE).exists() and not _same_config(folder, config_text):
        lock.close()
        raise ValueError(
            f"run_dir={folder} belongs to another configuration ({folder / CONFIG_FILE});"
            " give the same one to continue it, or another run_dir"
        )
    return folder, lock


def _find_or_make(config_text: str, name: str, runs_dir: Path) -> tuple[Path, TextIO]:
    for folder in sorted(runs_dir.glob(f"{name}-*")):
        if not _same_config(folder, config_text):
            continue
        lock = None
        with suppress(OSError):  # a folder of somebody else's
            lock = _lock(folder)
        if lock is None:
            continue
        if not (folder / RESULT).exists():  # asked under the lock: a run writes it while it holds
            return folder, lock
        lock.close()
    return _claim(runs_dir / f"{name}-{secrets.token_hex(3)}", config_text)


def _same_config(folder: Path, config_text: str) -> bool:
    with suppress(OSError):
        return _without_places((folder / CONFIG_FILE).read_text()) == _without_places(config_text)
    return False


def _without_places(config_text: str) -> list[str]:
    """Leave out where the run lies: the same run may be found by another path."""
    places = ("run_dir:", "runs_dir:")
    return [line for line in config_text.splitlines() if not line.startswith(places)]


def _lock(folder: Path) -> TextIO | None:
    lock = (folder / LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
