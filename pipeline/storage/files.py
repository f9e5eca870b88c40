"""Checks the files of a dataset against the index."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.index import Index
from pipeline.storage.reader import ContentError, SampleReader

Number = TypeVar("Number", np.int32, np.int64)
FileState = tuple[int, int] | str
"""Size in bytes and modification time in ns, or why they cannot be read."""

STAT_THREADS = 32
"""Network file systems answer each request slowly, but many at once."""
FILES_AT_A_TIME = 512
READ_THREADS = 16
MOST_IMAGES_OF_A_FILE = 64
MOST_IMAGES = 256


def file_faults(index: Index) -> list[str]:
    """Return one line for each file that is missing or has another size or content.

    Images are read only from files whose modification time changed (a copy, perhaps): at most 64
    per file and 256 in all, evenly spaced.
    """
    names: list[str] = index.files.to_pylist()
    faults: dict[int, str] = {}
    touched: list[int] = []
    indexed = zip(index.file_sizes.tolist(), index.file_mtimes_ns.tolist(), strict=True)
    states = file_states(index.root, names)
    for file, (state, (size, mtime_ns)) in enumerate(zip(states, indexed, strict=True)):
        if isinstance(state, str):
            faults[file] = state
        elif fault := size_fault(state[0], size):
            faults[file] = fault
        elif state[1] != mtime_ns:
            touched.append(file)
    if touched:
        faults |= _content_faults(index, np.array(touched, np.int32))
    return [f"{index.root / names[file]}: {faults[file]}" for file in sorted(faults)]


def size_fault(size: int, indexed: int) -> str | None:
    """Return what is wrong with a file's size in bytes; None if it matches the index."""
    if size == indexed:
        return None
    return (
        f"has {size:,} bytes, but had {indexed:,} when it was indexed: it was truncated or"
        " replaced; download it again, or prepare the dataset again"
    )


def file_states(root: Path, names: Sequence[str]) -> list[FileState]:
    """Return the state of each of the files `names` below `root`."""
    starts = range(0, len(names), FILES_AT_A_TIME)
    lots = [names[start : start + FILES_AT_A_TIME] for start in starts]
    if len(lots) <= 1:
        return _states(root, names)
    with ThreadPoolExecutor(STAT_THREADS, "stat") as pool:
        return [state for states in pool.map(partial(_states, root), lots) for state in states]


def samples_in(index: Index, file: int) -> NDArray[np.int64]:
    """Return the samples in file number `file`, in the order in which they are stored."""
    bounds = np.array([file, file + 1], index.file_ids.dtype)
    first, last = np.searchsorted(index.file_ids, bounds, sorter=index.stored)
    return index.stored[first:last]


def _states(root: Path, names: Sequence[str]) -> list[FileState]:
    return [_state(f"{root}/{name}") for name in names]


def _state(path: str) -> FileState:
    try:
        status = os.stat(path)  # noqa: PTH116 - creating millions of Paths takes longer than stat
    except OSError as error:
        return error.strerror or str(error)
    return status.st_size, status.st_mtime_ns


def _content_faults(index: Index, files: NDArray[np.int32]) -> dict[int, str]:
    """Read a few images of each of these files; return what is wrong, by file number."""
    chosen = _spread(files, MOST_IMAGES)
    share = min(MOST_IMAGES_OF_A_FILE, MOST_IMAGES // len(chosen))
    samples = np.concatenate([_spread(samples_in(index, file), share) for file in chosen.tolist()])
    faults: dict[int, str] = {}
    with SampleReader(index, READ_THREADS) as reader:
        for start in range(0, len(samples), READ_THREADS):
            some = samples[start : start + READ_THREADS]
            for sample, content in zip(some.tolist(), reader.read(some), strict=True):
                if isinstance(content, OSError):
                    faults.setdefault(int(index.file_ids[sample]), _content_fault(content))
    return faults


def _content_fault(error: OSError) -> str:
    if isinstance(error, ContentError):
        return (
            "its content does not match the index: it was replaced; download it again, or prepare"
            " the dataset again"
        )
    return error.strerror or str(error)


def _spread(values: NDArray[Number], most: int) -> NDArray[Number]:
    """Return at most `most` of the values, evenly spaced, including the first and the last."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).astype(np.int64)]
