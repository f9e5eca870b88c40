"""Writes checkpoints that survive a killed process or a failing disk at any system call."""

import errno
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
    name_of,
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
"""A checkpoint that is being written, .step-00004000.PID.tmp, or replaced, ....PID.old.tmp."""


def write_checkpoint(folder: Path, snapshot: Snapshot, fence: Fence = OPEN) -> Path:
    """Write `snapshot` into `folder`, completely or not at all; return its path.

    It replaces a checkpoint of the same step once it is complete and on disk. Raises OSError if the
    disk fails; older checkpoints are unchanged then. Raises `FencedOut`, and changes nothing, if
    another attempt owns the run.
    """
    fence.expect_mine()
    path = folder / name_of(snapshot.progress.step)
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    make_folder(folder)
    recover_checkpoints(folder)  # it also frees space
    _expect_room(folder, snapshot)
    temporary.mkdir()
    try:
        _write_files(temporary, snapshot)
        if _is_there(path, read_manifest(temporary)):
            sync_folder(folder)
        else:
            fence.expect_mine()  # writing takes a while
            _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # frees space on a full disk
    return path


def recover_checkpoints(folder: Path) -> None:
    """Delete what a killed process left; a complete checkpoint without its name is renamed.

    Only the process that has locked the run folder may call this.
    """
    for leftover in sorted(
        folder.glob(LEFTOVERS), reverse=True
    ):  # new checkpoints before replaced ones
        match = NAME.fullmatch(leftover.name)
        named = folder / match[1] if match else None
        with suppress(CheckpointError):
            if named and not named.exists():
                verify_checkpoint(leftover)
                with suppress(OSError):  # keep it; the next start tries again
                    leftover.rename(named)
                    sync_folder(folder)
                continue
        with suppress(OSError):
            _remove(leftover)


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that nobody reads half of it."""
    doomed = _aside(path)
    path.rename(doomed)
    _remove(doomed)


def delete_all_but(keep: set[Path], newest: Path) -> None:
    """Delete the checkpoints before `newest` that are not in `keep`, once `newest` is verified.

    Later ones were damaged when the run resumed, and will be replaced. Raises `CheckpointError`,
    and deletes nothing, if `newest` cannot be read back, and OSError if the disk fails.
    """
    found = [path for path in list_checkpoints(newest.parent) if step_of(path) < step_of(newest)]
    doomed = [path for path in found if path not in keep]
    if doomed:
        verify_checkpoint(newest)
    for path in doomed:
        delete_checkpoint(path)


def _expect_room(folder: Path, snapshot: Snapshot) -> None:
    """Raise OSError if the tensors do not fit: a partial write would fill the disk for others."""
    tensors = [tensor for group in snapshot.tensors.values() for tensor in group.values()]
    if shutil.disk_usage(folder).free < sum(tensor.nbytes for tensor in tensors):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


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
    """Whether the checkpoint at `path` is undamaged and has exactly the files of `manifest`."""
    try:
        verify_checkpoint(path)
        return read_manifest(path) == manifest
    except (OSError, ValueError):
        return False


def _put(temporary: Path, path: Path) -> None:
    """Rename a complete checkpoint; `recover_checkpoints` repairs an interruption."""
    aside = _aside(path)
    if os.path.lexists(path):
        path.rename(aside)
    temporary.rename(path)
    sync_folder(path.parent)
    with suppress(OSError):  # the next start tries again
        _remove(aside)


def _remove(path: Path) -> None:
    """Delete what has a checkpoint's name: a folder, or a link or file that somebody else made."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.old.tmp")


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
