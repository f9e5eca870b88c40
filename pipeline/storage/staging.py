"""Copies a dataset's files to each node's local disk, once, and reuses verified copies."""

import errno
import shutil
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.config.schema import Data, Synthetic
from pipeline.dataset.index import Index
from pipeline.dataset.samples import StoredFile
from pipeline.dataset.split import Split
from pipeline.distributed.world import World
from pipeline.storage.copying import Copier, Copy
from pipeline.storage.files import FileState, file_states
from pipeline.system.exit_codes import LocalError
from pipeline.system.locks import open_locked
from pipeline.system.progress import byte_progress
from pipeline.system.text import size

FINGERPRINT_DIGITS = 16
DISK_BLOCK_BYTES = 4096
NANOSECONDS = 1_000_000_000
MORE_ROOM = "free some space, choose another data.stage, or train without"

Files = dict[str, StoredFile]


def stage_on_each_node(data: Data, split: Split, world: World) -> Split:
    """Return the split as this rank should read it: from its node's stage if `data.stage` is set.

    A collective; all ranks wait for the slowest. Raises `LocalError` if `stage_split` fails here;
    the other ranks then fail because this one is missing.
    """
    if data.stage is None or isinstance(data.loader, Synthetic):
        return split
    with world.long_barrier():
        try:
            return stage_split(data, split)
        except ValueError as error:
            raise LocalError(str(error)) from error


def stage_split(data: Data, split: Split) -> Split:
    """Return the split with its files in `data.stage`, after copying those that are missing.

    Any number of processes may call this at once: one copies, and the others wait for it. Existing
    copies are not read again; if none is missing, the dataset's own files are not needed. Each copy
    gets the indexed modification time. Raises `ValueError` if a source does not match the index, or
    if the folder cannot be used or is too small.
    """
    root = stage_root(data, split)
    files = _files(split)
    if _absent(root, files):
        with _held(data, root):
            absent = _absent(root, files)  # again: another process may have copied them
            if absent:
                _copy(data, split, root, absent)
    return Split(replace(split.train, root=root), replace(split.val, root=root))


def stage_root(data: Data, split: Split) -> Path:
    """Return the folder of the staged files; their paths below it stay the same.

    Raises `ValueError` if it is inside the dataset's own folder.
    """
    assert data.stage is not None
    own = split.train.root.resolve()
    if data.stage.resolve().is_relative_to(own):
        raise ValueError(
            f"data.stage={data.stage} is inside the dataset's own folder {own}; choose a folder on"
            " the node's local disk"
        )
    return data.stage / split.train.manifest.fingerprint[:FINGERPRINT_DIGITS]


def staged_bytes(split: Split) -> int:
    """Return the total size in bytes of the split's files."""
    return sum(file.size for file in _files(split).values())


def _files(split: Split) -> Files:
    """Return the files of both halves by name; a shared file is listed once."""
    return {
        file.name: file
        for index in (split.train, split.val)
        for file in map(
            StoredFile,
            index.files.to_pylist(),
            index.file_sizes.tolist(),
            index.file_mtimes_ns.tolist(),
        )
    }


def _absent(root: Path, files: Files) -> Files:
    """Return the files without a copy; only complete and verified copies have their final name.

    Size and modification time distinguish datasets indexed at different times. Some file systems
    store times in whole seconds.
    """
    states = file_states(root, list(files))
    pairs = zip(files.values(), states, strict=True)
    return {file.name: file for file, state in pairs if not _is_copy(state, file)}


def _is_copy(state: FileState, file: StoredFile) -> bool:
    if isinstance(state, str):
        return False
    size, mtime_ns = state
    return size == file.size and abs(mtime_ns - file.mtime_ns) < NANOSECONDS


@contextmanager
def _held(data: Data, root: Path) -> Generator[None]:
    """Hold the lock of this dataset's stage; wait for the process that has it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = open_locked(_beside(root, "lock"), wait=True)
    except OSError as error:
        raise _unusable(data, error) from error
    assert lock is not None, "it waits for the lock"
    with lock:
        yield


def _copy(data: Data, split: Split, root: Path, absent: Files) -> None:
    """Copy and verify files while holding the lock."""
    _expect_below(data, absent)
    partial = _beside(root, "partial")
    try:
        with _emptied(partial):
            _expect_room(data, root, absent)
            total = sum(file.size for file in absent.values())
            with byte_progress("staging", total=total) as advance:
                Copier(advance).run(_copies(split, root, partial, absent))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            left = _absent(root, absent)
            _expect_room(data, root, left)
            raise ValueError(
                f"stage {data.stage} is full ({error.strerror}), but {data.dir} needs"
                f" {size(_on_disk(left))} more; {MORE_ROOM}"
            ) from error
        raise _unusable(data, error) from error


def _expect_below(data: Data, files: Files) -> None:
    for name in files:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{data.dir}: {name} is outside the dataset's root; it is not staged")


def _copies(split: Split, root: Path, partial: Path, absent: Files) -> Iterator[Copy]:
    holders: Mapping[str, list[tuple[Index, int]]] = defaultdict(list)
    for index in (split.train, split.val):
        for number, name in enumerate(index.files.to_pylist()):
            if name in absent:
                holders[name].append((index, number))
    for number, (name, file) in enumerate(absent.items()):
        source, target = split.train.root / name, root / name
        yield Copy(file, source, partial / str(number), target, tuple(holders[name]))


@contextmanager
def _emptied(folder: Path) -> Generator[None]:
    """Provide an empty folder for the block; a killed process may have left files in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _expect_room(data: Data, root: Path, absent: Files) -> None:
    free, needed = shutil.disk_usage(root).free, _on_disk(absent)
    if free < needed:
        raise ValueError(
            f"stage {data.stage} has {size(free)} free, but {data.dir} needs {size(needed)} more;"
            f" {MORE_ROOM}"
        )


def _on_disk(files: Files) -> int:
    """Return the bytes that files take on disk, in whole blocks."""
    blocks = sum(-(-file.size // DISK_BLOCK_BYTES) for file in files.values())
    return blocks * DISK_BLOCK_BYTES


def _unusable(data: Data, error: OSError) -> ValueError:
    place = f" at {error.filename}" if error.filename else ""
    return ValueError(
        f"data.stage={data.stage} cannot be used ({error.strerror}{place}); choose a folder on the"
        " node's local disk that you may write to"
    )


def _beside(root: Path, kind: str) -> Path:
    return root.with_name(f"{root.name}.{kind}")
