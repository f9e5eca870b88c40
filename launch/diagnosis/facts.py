"""Collecting the facts for the rules."""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from launch.diagnosis.machine_rules import SHARED_MEMORY, Machine
from launch.diagnosis.place_rules import Folder, TrackingStore
from pipeline.config.schema import Container
from pipeline.config.schema.store import usable_store
from pipeline.system.locks import lock_file
from pipeline.system.mounts import shared
from pipeline.tracking.server import why_silent
from pipeline.tracking.store_uri import sqlite_file, without_password

ANSWER_SECONDS = 60
MISSING = "no such folder"


def inspect_machine() -> Machine:
    """Return the facts about this machine."""
    listed = run("nvidia-smi", "-L") or ""
    gpus = sum(line.startswith("GPU ") for line in listed.splitlines())
    memory = shutil.disk_usage(SHARED_MEMORY).free if Path(SHARED_MEMORY).is_dir() else None
    return Machine(
        gpus=gpus,
        torch_gpus=_torch_gpus() if gpus else 0,
        shared_memory_bytes=memory,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        locked_memory_bytes=locked_memory_bytes(),
    )


def locked_memory_bytes() -> int:
    """Return how much memory this process may lock."""
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]


def inspect_folder(
    setting: str, path: Path, must_be: Literal["shared", "local", "anything"], *, is_written: bool
) -> Folder:
    """Return the facts about a folder; no file stays in it."""
    is_shared, where = shared(path)
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    folder = Folder(setting, path, where, is_shared, must_be, is_written, free)
    if not is_written:
        return folder if must_be == "local" or path.is_dir() else replace(folder, trouble=MISSING)
    try:
        return replace(folder, skew_seconds=_write_and_lock(there))
    except OSError as error:
        return replace(folder, trouble=f"{error.strerror} ({there})")


def inspect_store(uri: str) -> TrackingStore:
    """Return the facts about MLflow's store."""
    shown, file = without_password(uri), sqlite_file(uri)
    try:
        usable_store(uri)
    except ValueError as error:
        return TrackingStore(shown, refusal=str(error))
    if file is not None:
        return TrackingStore(shown, shared_file=shared(file)[0] is True)
    return TrackingStore(shown, error=why_silent(uri))


def has_runtime(container: Container) -> bool:
    """Return whether this machine has the container's runtime."""
    match container.runtime:
        case "pyxis":
            return "--container-image" in (run("srun", "--help") or "")
        case "apptainer":
            return shutil.which("apptainer") is not None


def run(*command: str) -> str | None:
    """Return the output of a command; None if it fails."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _write_and_lock(folder: Path) -> float:
    """Return how many seconds the clock of the folder's file system is ahead of ours."""
    with tempfile.TemporaryFile(dir=folder) as file:
        lock_file(file)
        before = time.time()
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        written, after = os.fstat(file.fileno()).st_mtime, time.time()
    return written - min(max(written, before), after)


def _torch_gpus() -> int:
    import torch  # takes seconds

    count: Callable[[], int] = torch.cuda.device_count
    return count()
