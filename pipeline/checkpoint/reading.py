"""Finds checkpoints, verifies them and reads them."""

import hashlib
import stat
from collections.abc import Callable
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from pipeline.checkpoint.snapshot import (
    MANIFEST,
    PROGRESS,
    CheckpointError,
    FileHashes,
    Progress,
    Snapshot,
)
from pipeline.system.patience import patiently

REQUIRED = {PROGRESS, "model.safetensors"}
TENSORS, TEXTS = ".safetensors", (".json", ".yaml")
TEXT_BYTES = 2**24
"""Longer texts are refused: a forged one must not fill the memory."""

T = TypeVar("T")


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=step_of)


def name_of(step: int) -> str:
    """Return the name of the checkpoint of `step`."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Return the step of the checkpoint at `path`, from its name."""
    return int(path.name[5:])


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest undamaged checkpoint, or None; `warn` about each damaged one."""
    found = patiently(lambda: list_checkpoints(folder))
    for path in reversed(found):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            is_oldest = path == found[0]
            remedy = "it is the oldest one" if is_oldest else "falling back to the previous one"
            warn(f"{error}; {remedy}")
        else:
            return path
    return None


def verify_checkpoint(path: Path) -> list[str]:
    """Return the names of a checkpoint's files; raise `CheckpointError` if it is damaged."""
    try:
        manifest = patiently(lambda: read_manifest(path))
        if missing := REQUIRED - manifest.sha256.keys():
            raise ValueError(f"{MANIFEST} does not name {' or '.join(sorted(missing))}")
        for name, digest in manifest.sha256.items():
            if Path(name).name != name:
                raise ValueError(f"{MANIFEST} names {name!r}, which is not a plain file name")
            if patiently(partial(_sha256, path / name)) != digest:
                raise ValueError(f"{name} does not match its SHA-256")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from error
    return list(manifest.sha256)


def read_manifest(path: Path) -> FileHashes:
    """Read the file hashes of the checkpoint at `path`; raise OSError or ValueError."""
    return _parse(TypeAdapter(FileHashes), path / MANIFEST)


def read_progress(path: Path) -> Progress:
    """Read the progress of the checkpoint at `path`, unverified; raise OSError or ValueError."""
    return _parse(TypeAdapter(Progress), path / PROGRESS)


def read_checkpoint(path: Path) -> Snapshot:
    """Read and verify one checkpoint; raise `CheckpointError` if it is damaged."""
    names = verify_checkpoint(path)
    try:
        return Snapshot(
            tensors={
                name.removesuffix(TENSORS): load_file(path / name)
                for name in names
                if name.endswith(TENSORS)
            },
            progress=read_progress(path),
            documents={
                name: _read_text(path / name).decode()
                for name in names
                if name.endswith(TEXTS) and name != PROGRESS
            },
        )
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        why = str(error).partition("\n")[0]  # torch appends a stack
        raise CheckpointError(f"checkpoint {path} cannot be read ({why})") from error


def _sha256(path: Path) -> str:
    with _open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse(kind: TypeAdapter[T], path: Path) -> T:
    try:
        return kind.validate_json(_read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (path.name, *first["loc"])))
        raise ValueError(f"{place}: {first['msg']}") from error


def _read_text(path: Path) -> bytes:
    with _open_plain(path) as stream:
        content = stream.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise ValueError(f"{path.name} is longer than {TEXT_BYTES:,} bytes")
    return content


def _open_plain(path: Path) -> BufferedReader:
    """Open a regular file for reading: opening a pipe would block, a link may lead anywhere."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is not a plain file")
    return path.open("rb")
