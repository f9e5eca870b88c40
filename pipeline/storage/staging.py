"""A dataset's files on a node's own disk: copied once, proved by digest, and used again."""

import errno
import fcntl
import os
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
from pipeline.system.progress import byte_progress

FINGERPRINT_DIGITS = 16
DISK_BLOCK_BYTES = 4096
NANOSECONDS = 1_000_000_000
MORE_ROOM = "free some space, choose another data.stage, or train without"

Files = dict[str, StoredFile]


def stage_on_each_node(data: Data, split: Split, world: World) -> Split:
    """Return the split as this rank should read it: from its node's stage, if there is to be one.

    All ranks call this and wait for the slowest. Raise `LocalError` where `stage_split` fails; the
    other ranks then fail for want of this one.
    """
    if data.stage is None or isinstance(data.loader, Synthetic):
        return split
    with world.hours_apart():
        try:
            return stage_split(data, split)
        except ValueError as error:
            raise LocalError(str(error)) from error


def stage_split(data: Data, split: Split) -> Split:
    """Return the split as it lies in `data.stage`, once all of its files are there.

    Any number of processes may call this at once: one copies, and the others wait for it. Files
    that are there are not read again, and then the dataset's own are not needed. Each copy has the
    time of modification that was indexed, wherever it was copied from. Raise `ValueError` for a
    source that is not what was indexed and for a folder that cannot be used or is too small.
    """
    root = stage_root(data, split)
    files = _files(split)
    if _absent(root, files):
        with _held(data, root):
            absent = _absent(root, files)  # again: it may have been another's turn before
            if absent:
                _copy(data, split, root, absent)
    return Split(replace(split.train, root=root), replace(split.val, root=root))


def stage_root(data: Data, split: Split) -> Path:
    """Return the folder that the dataset's files are staged in; below it names stay the same.

    Raise `ValueError` if it lies inside the dataset's own folder.
    """
    assert data.stage is not None
    own = split.train.root.resolve()
    if data.stage.resolve().is_relative_to(own):
        raise ValueError(
            f"data.stage={data.stage} lies inside the dataset's own folder {own}; choose a folder"
            " on a disk of the node's own"
        )
    return data.stage / split.train.manifest.fingerprint[:FINGERPRINT_DIGITS]


def staged_bytes(split: Split) -> int:
    """Return how many bytes a whole copy of the split's files has."""
    return sum(file.size for file in _files(split).values())


def _files(split: Split) -> Files:
    """Return the files of both halves by name; one that they share is one file."""
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
    """Return the files that have no copy: a file is under its name when it is whole and proved.

    Size and time tell apart files of one name that were indexed at different times; some file
    systems keep whole seconds only.
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
    """Hold this stage of this dataset: the lock goes with the process, however it ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(_beside(root, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unusable(data, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _unusable(data, error) from error
        yield
    finally:
        os.close(lock)


def _copy(data: Data, split: Split, root: Path, absent: Files) -> None:
    """Copy and prove files; the lock is held."""
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
                f"stage {data.stage} takes no more ({error.strerror}), but {data.dir} needs"
                f" {_size(_on_disk(left))} more; {MORE_ROOM}"
            ) from error
        raise _unusable(data, error) from error


def _expect_below(data: Data, files: Files) -> None:
    for name in files:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{data.dir}: {name} lies outside of its root, and is not staged")


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
    """Have an empty folder for the length of the block; a copier that was killed left things."""
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
            f"stage {data.stage} has {_size(free)} free, but {data.dir} needs {_size(needed)} more;"
            f" {MORE_ROOM}"
        )


def _on_disk(files: Files) -> int:
    """Return the bytes that files take, in whole blocks of the disk."""
    blocks = sum(-(-file.size // DISK_BLOCK_BYTES) for file in files.values())
    return blocks * DISK_BLOCK_BYTES


def _unusable(data: Data, error: OSError) -> ValueError:
    place = f" at {error.filename}" if error.filename else ""
    return ValueError(
        f"data.stage={data.stage} cannot be used ({error.strerror}{place}); name a folder that you"
        " may write to, on a disk of the node's own"
    )


def _beside(root: Path, kind: str) -> Path:
    return root.with_name(f"{root.name}.{kind}")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
