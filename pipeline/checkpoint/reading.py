"""Finding checkpoints, and reading those that are whole."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from pipeline.checkpoint.snapshot import (
    MANIFEST,
    PROGRESS,
    CheckpointError,
    Manifest,
    Progress,
    Snapshot,
)

REQUIRED = {PROGRESS, "model.safetensors"}
TENSORS, TEXTS = ".safetensors", (".json", ".yaml")


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """Return the step that the checkpoint at `path` is of."""
    return int(path.name[5:])


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint that is whole, or None; `warn` of those that are not."""
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; falling back to the one before")
        else:
            return path
    return None


def verify_checkpoint(path: Path) -> list[str]:
    """Return the names of a checkpoint's files if each matches its hash, or raise."""
    try:
        manifest = read_manifest(path)
        if missing := REQUIRED - manifest.sha256.keys():
            raise ValueError(f"{MANIFEST} does not name {' or '.join(sorted(missing))}")
        for name, digest in manifest.sha256.items():
            if Path(name).name != name:
                raise ValueError(f"{MANIFEST} names {name!r}, which is not a plain file name")
            if _sha256(path / name) != digest:
                raise ValueError(f"{name} does not match its SHA-256")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from error
    return list(manifest.sha256)


def read_manifest(path: Path) -> Manifest:
    """Read what the checkpoint at `path` says that it consists of; raise OSError or ValueError."""
    return TypeAdapter(Manifest).validate_json((path / MANIFEST).read_bytes())


def read_progress(path: Path) -> Progress:
    """Read where the run stood, unverified; raise OSError or ValueError."""
    return TypeAdapter(Progress).validate_json((path / PROGRESS).read_bytes())


def read_checkpoint(path: Path) -> Snapshot:
    """Read and verify one checkpoint; raise `CheckpointError` if anything is amiss."""
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
                name: (path / name).read_text("utf-8")
                for name in names
                if name.endswith(TEXTS) and name != PROGRESS
            },
        )
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error})") from error


def _sha256(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path.name} is not a plain file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
