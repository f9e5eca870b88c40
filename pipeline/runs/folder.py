"""The folder of a run: found or created, and locked by one process at a time."""

import json
import os
import platform
import secrets
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pipeline.config.identity import result_identity
from pipeline.config.load import ConfigError, dump, flatten, load_saved
from pipeline.config.schema import Config
from pipeline.runs.fence import Fence
from pipeline.system.command import command_line
from pipeline.system.durable import make_folder, write_whole
from pipeline.system.exit_codes import NotSaved
from pipeline.system.locks import lock_file, open_locked
from pipeline.system.patience import may_pass, patiently

CONFIG_FILE = "config.yaml"
RESULT = "result.json"
LOCK = "lock"
SEARCH_LOCK = ".lock"
"""In the folder of runs: held while a process looks for its run there."""
SEARCH_SECONDS = 120.0
POLL_SECONDS = 0.05
CHECKPOINT_MARK = "model.safetensors"
"""A folder with this file is a checkpoint or an average, not a run folder."""
KEYS_SHOWN = 3
REMEDY = "free space there, or repair the disk, and run the same command again"


@contextmanager
def hold_run_folder(config: Config) -> Generator[Path]:
    """Yield the folder of this run, locked for the length of the block.

    It is `run_dir` if given; else the unfinished run in `runs_dir` with the same `result_identity`;
    else a new folder. The configuration is saved in it, unless the run is finished. The system
    releases the lock when the process ends. Raises `ValueError` if another process has the run, or
    if `run_dir` is a checkpoint or belongs to another configuration, and `NotSaved` if the disk
    stays full.
    """
    with ExitStack() as stack:
        # Until the configuration is saved: another process finds the run by it.
        with nullcontext() if config.run_dir else _one_at_a_time(config.runs_dir):
            claim = _claim(config.run_dir, config) if config.run_dir else _find_or_make(config)
            folder, lock = claim
            stack.callback(lock.close)
            Fence.around(folder).expect_mine()
            if not _exists(folder / RESULT):
                save_config(_as_begun(config, folder), folder)
        yield folder


def save_config(config: Config, folder: Path) -> None:
    """Save the configuration of a run; raise `NotSaved` if that fails."""
    try:
        patiently(lambda: make_folder(folder / "checkpoints"))
        patiently(lambda: write_whole(folder / CONFIG_FILE, dump(config).encode()))
    except OSError as error:
        why = f"the configuration cannot be saved in {folder}: {error.strerror}"
        raise NotSaved(f"{why}; {REMEDY}") from error


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None if it is not finished."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return json.loads(patiently((folder / RESULT).read_text))
    return None


def with_choices_of(config: Config, theirs: Config) -> Config:
    """Return `config` with what the run decided at its first start, such as an `auto` precision."""
    if config.train.precision != "auto":
        return config
    return replace(config, train=replace(config.train, precision=theirs.train.precision))


def _as_begun(config: Config, folder: Path) -> Config:
    path = folder / CONFIG_FILE
    return with_choices_of(config, load_saved(path)) if _exists(path) else config


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
        raise ValueError(
            f"run_dir={folder} is in use by a running process; wait for it or stop it:"
            f" {_who_has(folder)}"
        )
    difference = _difference(folder, config) if _exists(folder / CONFIG_FILE) else ""
    if difference:
        lock.close()
        raise ValueError(
            f"run_dir={folder} belongs to another configuration ({difference});"
            " give the same one to continue it, or another run_dir"
        )
    return folder, lock


def own_runs(config: Config) -> list[Path]:
    """Return the unfinished runs that a command with `config` would continue."""
    if config.run_dir:
        return [config.run_dir]
    return [
        folder
        for folder in patiently(lambda: sorted(config.runs_dir.glob(f"{config.name}-*")))
        if not (_is_checkpoint(folder) or _exists(folder / RESULT))
        and not _difference(folder, config)
    ]


def new_run_dir(config: Config) -> Path:
    """Return the path of a folder that does not exist yet, for another run of `config`."""
    return config.runs_dir / f"{config.title}-{secrets.token_hex(3)}"


def _find_or_make(config: Config) -> tuple[Path, IO[str]]:
    for folder in own_runs(config):
        try:
            lock = _lock(folder)
        except OSError:  # another user's folder
            continue
        if lock is None:
            raise ValueError(_taken(folder))
        if not _exists(folder / RESULT):  # a run writes it while it has the lock
            return folder, lock
        lock.close()
    return _claim(new_run_dir(config), config)


def _taken(folder: Path) -> str:
    """Return why a command is refused while another process has its run in `folder`."""
    status, cancel = (command_line(f"launch/{name}.py", folder) for name in ("status", "cancel"))
    return (
        f"{folder} is already in use by a run with this configuration: {_who_has(folder)}; see"
        f" {status}, or end it with {cancel}. To start another run with the same settings, use"
        " launch/submit.py --new, or set a new run_dir"
    )


@contextmanager
def _one_at_a_time(runs_dir: Path) -> Generator[None]:
    """Let one process at a time look for its run: two might each make a folder for the same one."""
    with ExitStack() as stack:
        with suppress(OSError):  # another user's folder, or a file system without locks
            patiently(lambda: make_folder(runs_dir))
            if lock := _await_lock(runs_dir / SEARCH_LOCK):
                stack.enter_context(lock)
        yield


def _await_lock(path: Path) -> IO[str] | None:
    """Lock a file once it is free; None if that takes so long that its holder hangs or is lost."""
    deadline = time.monotonic() + SEARCH_SECONDS
    while (lock := open_locked(path)) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return lock


def _is_checkpoint(folder: Path) -> bool:
    return _exists(folder / CHECKPOINT_MARK)


def _exists(path: Path) -> bool:
    return patiently(path.exists)


def _difference(folder: Path, config: Config) -> str:
    """Return the settings in which the run in `folder` differs from `config`, or ""."""
    with suppress(OSError):  # `load` would take an unreachable disk for an invalid file
        patiently((folder / CONFIG_FILE).read_bytes)
    try:
        stored = load_saved(folder / CONFIG_FILE)
    except ConfigError as error:
        return f"its {CONFIG_FILE} is no longer valid: {str(error).splitlines()[0]}"
    theirs = flatten(result_identity(stored))
    ours = flatten(result_identity(with_choices_of(config, stored)))
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    more = [f"{len(keys) - KEYS_SHOWN} more"] if len(keys) > KEYS_SHOWN else []
    shown = [
        f"{key} is {theirs.get(key, 'not set')} there and {ours.get(key, 'not set')} here"
        for key in keys[:KEYS_SHOWN]
    ]
    return ", ".join(shown + more)


def _lock(folder: Path) -> IO[str] | None:
    """Return the run's lock, with the name of this process in it; None if another has the lock.

    With a fence the lock is not required: a lost node may keep it for minutes or forever.
    """
    fence = Fence.around(folder)
    if fence.is_active:
        lock = patiently(lambda: (folder / LOCK).open("a"))
        with suppress(OSError):
            if not lock_file(lock):
                return lock
    elif (lock := patiently(lambda: open_locked(folder / LOCK))) is None:
        return None
    attempt = f"attempt {fence.token}, " if fence.is_active else ""
    with suppress(OSError):  # a full disk; the name only informs
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"{attempt}process {os.getpid()} on {platform.node()}".encode())
    return lock


def _who_has(folder: Path) -> str:
    """Return which process has the run's lock."""
    with suppress(OSError):
        return (folder / LOCK).read_text().strip() or "a process"
    return "a process"
