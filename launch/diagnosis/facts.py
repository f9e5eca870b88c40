"""Finding out the facts that the rules judge."""

import fcntl
import os
import resource
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from launch.diagnosis.machine_rules import SHARED_MEMORY, Machine
from launch.diagnosis.place_rules import Folder, Store
from pipeline.config.schema import Container
from pipeline.system.mounts import shared
from pipeline.tracking.store_uri import sqlite_file, without_password

ANSWER_SECONDS = 5.0
MISSING = "there is no such folder"


def look_at_machine() -> Machine:
    """Return what this machine has."""
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


def look_at_folder(
    setting: str, path: Path, must_be: Literal["shared", "local", "anything"], *, is_written: bool
) -> Folder:
    """Return what a folder is like; leaves nothing in it."""
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


def look_at_store(uri: str) -> Store:
    """Return whether MLflow's store is there."""
    shown, file = without_password(uri), sqlite_file(uri)
    if file is not None:
        return Store(shown, shared_file=shared(file)[0] is True)
    if not uri.startswith(("http://", "https://")):
        return Store(shown)
    request = f"{uri.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):  # noqa: S310 - it is http
            return Store(shown)
    except (OSError, ValueError) as error:
        return Store(shown, error=str(error))


def has_runtime(container: Container) -> bool:
    """Return whether the container's runtime is here."""
    match container.runtime:
        case "pyxis":
            return "--container-image" in (run("srun", "--help") or "")
        case "apptainer":
            return shutil.which("apptainer") is not None


def run(*command: str) -> str | None:
    """Return what a command prints; None if it cannot."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _write_and_lock(folder: Path) -> float:
    """Return by how many seconds the clock of the folder's file system is ahead of ours."""
    with tempfile.TemporaryFile(dir=folder) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
