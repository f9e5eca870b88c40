"""Paths: stored in an index, shown in a message, and written to."""

import os
from collections.abc import Sequence
from pathlib import Path

SHOWN = 10


def require_utf8(path: str) -> None:
    """Raises `ValueError` for a path that an index cannot store."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path!a}: this name is not UTF-8; rename it") from error


def root_for(source: Path, out: Path) -> str:
    """Return the root of an index at `out`: relative if it or `source` contains the other.

    Then the two can be moved together; otherwise the root is absolute, and the index can be moved
    alone. Raises `ValueError` for a path that an index cannot store.
    """
    source, out = source.resolve(), out.resolve()
    require_utf8(str(source))
    if source.is_relative_to(out):
        return str(source.relative_to(out))
    if out.is_relative_to(source) and source != Path("/"):
        return "/".join([".."] * len(out.relative_to(source).parts)) or "."
    return str(source)


def require_folder(option: str, folder: Path) -> None:
    """Raises `ValueError` unless `folder` is, or can become, a folder that we may write to."""
    require_utf8(str(folder))
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise ValueError(f"{option} {folder}: {nearest} is not a folder; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(
            f"{option} {folder}: no permission to write to {nearest}; choose another folder"
        )


def require_file(option: str, file: Path) -> None:
    """Raises `ValueError` unless we may write a file at `file`."""
    folder = file.absolute().parent
    if file.is_dir() or not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ValueError(
            f"{option} {file} cannot be written; name a file in a folder that you may write to"
        )


def shown(names: Sequence[str]) -> str:
    """List the first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(map(printable, names[:SHOWN])) + (f" and {more:,} more" if more > 0 else "")


def printable(name: str) -> str:
    """Return a name that cannot break lines or send commands to a terminal."""
    return name if name.isprintable() else ascii(name)
