"""Writing checkpoints so that a process may die, or a disk fail, between any two system calls."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pipeline.checkpoint.reading import (
    TENSORS,
    list_checkpoints,
    read_manifest,
    step_of,
    verify_checkpoint,
)
from pipeline.checkpoint.snapshot import MANIFEST, PROGRESS, CheckpointError, FileHashes, Snapshot
from pipeline.checkpoint.tensor_file import tensor_file
from pipeline.runs.fence import OPEN, Fence
from pipeline.system.durable import make_folder, sync_folder, write_durably

LEFTOVERS = ".step-*.tmp"
NAME = re.compile(r"\.(step-\d+)\.\d+(\.old)?\.tmp")
"""A checkpoint that has no name yet, .step-00004000.PID.tmp, or none any more, with .old in it."""


def write_checkpoint(folder: Path, snapshot: Snapshot, fence: Fence = OPEN) -> Path:
    """Write `snapshot` into `folder` so that it is there whole or not at all; return its path.

    One of the same step makes way: until the new one is whole and on disk, the old one is there.
    Raises OSError if the disk does; what was there before then still is. Raises `FencedOut`, and
    changes nothing, if the run is another attempt's by now.
    """
    fence.expect_mine()
    path = folder / f"step-{snapshot.progress.step:08d}"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    make_folder(folder)
    recover_checkpoints(folder)  # also to make room
    temporary.mkdir()
    try:
        _write_files(temporary, snapshot)
        if _is_there(path, read_manifest(temporary)):
            sync_folder(folder)
        else:
            fence.expect_mine()  # writing takes a while
            _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk is not left any fuller
    return path


def recover_checkpoints(folder: Path) -> None:
    """Clear away what a killed process left; a whole checkpoint that lacks only its name gets it.

    Only the process that holds the run's folder may call this.
    """
    for leftover in sorted(folder.glob(LEFTOVERS), reverse=True):  # a new one before an old one
        match = NAME.fullmatch(leftover.name)
        named = folder / match[1] if match else None
        with suppress(CheckpointError):
            if named and not named.exists():
                verify_checkpoint(leftover)
                with suppress(OSError):  # next time, perhaps; it must not go
                    leftover.rename(named)
                    sync_folder(folder)
                continue
        with suppress(OSError):
            _remove(leftover)


def delete_checkpoint(path: Path) -> None:
    """Remove a checkpoint; it is gone for every reader before its first file is."""
    doomed = _aside(path)
    path.rename(doomed)
    _remove(doomed)


def delete_all_but(keep: set[Path], newest: Path) -> None:
    """Delete the checkpoints up to `newest` that are not to be kept, once `newest` is verified.

    Later ones were damaged when the run resumed, and are written anew when it comes to them. Raises
    `CheckpointError`, and deletes nothing, if `newest` cannot be read back; else OSError.
    """
    found = [path for path in list_checkpoints(newest.parent) if step_of(path) < step_of(newest)]
    doomed = [path for path in found if path not in keep]
    if doomed:
        verify_checkpoint(newest)
    for path in doomed:
        delete_checkpoint(path)


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    files = {f"{group}{TENSORS}": tensor_file(each) for group, each in snapshot.tensors.items()}
    texts = {name: text.encode() for name, text in snapshot.documents.items()}
    texts[PROGRESS] = _json(asdict(snapshot.progress))
    files |= {name: iter([memoryview(text)]) for name, text in texts.items()}
    digests = {name: _write_hashed(folder / name, parts) for name, parts in files.items()}
    write_durably(folder / MANIFEST, _json({"sha256": digests}))
    sync_folder(folder)


def _write_hashed(path: Path, parts: Iterable[memoryview]) -> str:
    digest = hashlib.sha256()

    def hashed() -> Iterator[memoryview]:
        for part in parts:
            digest.update(part)
            yield part

    write_durably(path, hashed())
    return digest.hexdigest()


def _is_there(path: Path, manifest: FileHashes) -> bool:
    """Whether the checkpoint at `path` is whole and just what `manifest` says."""
    try:
        verify_checkpoint(path)
        return read_manifest(path) == manifest
    except (OSError, ValueError):
        return False


def _put(temporary: Path, path: Path) -> None:
    """Give a whole checkpoint its name; in between, `recover_checkpoints` knows of both."""
    aside = _aside(path)
    if os.path.lexists(path):
        path.rename(aside)
    temporary.rename(path)
    sync_folder(path.parent)
    with suppress(OSError):  # next time, then
        _remove(aside)


def _remove(path: Path) -> None:
    """Remove what has the name of a checkpoint: a folder, or a link or file that others made."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.old.tmp")


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
