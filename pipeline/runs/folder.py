"""The folder of a run: found or created, and locked by one process at a time."""

import json
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pipeline.config.identity import result_identity
from pipeline.config.load import ConfigError, dump, flatten, load
from pipeline.config.schema import Config
from pipeline.runs.fence import Fence
from pipeline.system.durable import make_folder, write_whole
from pipeline.system.exit_codes import NotSaved
from pipeline.system.locks import lock_file, open_locked
from pipeline.system.patience import may_pass, patiently

CONFIG_FILE = "config.yaml"
RESULT = "result.json"
LOCK = "lock"
CHECKPOINT_MARK = "model.safetensors"
"""A folder with this file is a checkpoint or an average, not a run folder."""
KEYS_SHOWN = 3
REMEDY = "free space there, or repair the disk, and run the same command again"


@contextmanager
def hold_run_folder(config: Config) -> Generator[Path]:
    """Yield the folder of this run, locked for the length of the block.

    It is `run_dir` if given; else an unfinished run in `runs_dir` with the same `result_identity`
    that no process holds; else a new folder. The configuration is saved in it, unless the run is
    finished. The system releases the lock when the process ends. Raises `ValueError` if `run_dir`
    is a checkpoint, or belongs to another configuration or a running process, and `NotSaved` if the
    disk stays full.
    """
    if config.run_dir:
        folder, lock = _claim(config.run_dir, config)
    else:
        folder, lock = _find_or_make(config)
    try:
        Fence.around(folder).expect_mine()
        _save(config, folder)
        yield folder
    finally:
        lock.close()


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None if it is not finished."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return json.loads(patiently((folder / RESULT).read_text))
    return None


def _save(config: Config, folder: Path) -> None:
    """Save the configuration, unless the run is finished."""
    try:
        patiently(lambda: make_folder(folder / "checkpoints"))
        if not _exists(folder / RESULT):
            patiently(lambda: write_whole(folder / CONFIG_FILE, dump(config).encode()))
    except OSError as error:
        why = f"the configuration cannot be saved in {folder}: {error.strerror}"
        raise NotSaved(f"{why}; {REMEDY}") from error


def _claim(folder: Path, config: Config) -> tuple[Path, IO[str]]:
    if _is_checkpoint(folder):
        raise ValueError(
            f"run_dir={folder} is a checkpoint or an average, not a run folder; give the folder of"
            " its run to continue it, or a new folder"
        )
    try:
        patiently(lambda: make_folder(folder))
        lock = _lock(folder)
    except OSError as error:
        why = f"run_dir={folder} cannot be created or locked: {error.strerror}"
        raise NotSaved(f"{why}; {REMEDY}") if may_pass(error) else ValueError(why) from error
    if lock is None:
        raise ValueError(f"run_dir={folder} is in use by a running process; wait for it or stop it")
    difference = _difference(folder, config) if _exists(folder / CONFIG_FILE) else ""
    if difference:
        lock.close()
        raise ValueError(
            f"run_dir={folder} belongs to another configuration ({difference});"
            " give the same one to continue it, or another run_dir"
        )
    return folder, lock


def _find_or_make(config: Config) -> tuple[Path, IO[str]]:
    for folder in patiently(lambda: sorted(config.runs_dir.glob(f"{config.name}-*"))):
        if _is_checkpoint(folder) or _difference(folder, config):
            continue
        lock = None
        with suppress(OSError):  # another user's folder
            lock = _lock(folder)
        if lock is None:
            continue
        if not _exists(folder / RESULT):  # checked under the lock: a run writes it while holding
            return folder, lock
        lock.close()
    return _claim(config.runs_dir / f"{config.name}-{secrets.token_hex(3)}", config)


def _is_checkpoint(folder: Path) -> bool:
    return _exists(folder / CHECKPOINT_MARK)


def _exists(path: Path) -> bool:
    return patiently(path.exists)


def _difference(folder: Path, config: Config) -> str:
    """Return the settings in which the run in `folder` differs from `config`, or ""."""
    with suppress(OSError):  # `load` would take an unreachable disk for an invalid file
        patiently((folder / CONFIG_FILE).read_bytes)
    try:
        theirs = flatten(result_identity(load(folder / CONFIG_FILE)))
    except ConfigError as error:
        return f"its {CONFIG_FILE} is no longer valid: {str(error).splitlines()[0]}"
    ours = flatten(result_identity(config))
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    more = [f"{len(keys) - KEYS_SHOWN} more"] if len(keys) > KEYS_SHOWN else []
    shown = [
        f"{key} is {theirs.get(key, 'not set')} there and {ours.get(key, 'not set')} here"
        for key in keys[:KEYS_SHOWN]
    ]
    return ", ".join(shown + more)


def _lock(folder: Path) -> IO[str] | None:
    """Return the run's lock, or None if another process has it.

    With a fence the lock is not required: a lost node may keep it for minutes or forever.
    """
    if not Fence.around(folder).is_active:
        return patiently(lambda: open_locked(folder / LOCK))
    lock = patiently(lambda: (folder / LOCK).open("a"))
    with suppress(OSError):
        lock_file(lock)
    return lock
