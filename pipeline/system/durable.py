"""Files that are complete or absent, and survive a power cut."""

import errno
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS}


def write_durably(path: Path, content: bytes | Iterable[memoryview]) -> None:
    """Write `content`, given as one piece or in parts, and return once it is on disk.

    Until then a reader may see an incomplete file.
    """
    parts = [memoryview(content)] if isinstance(content, bytes) else content
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for part in parts:
            written = 0
            while written < part.nbytes:  # a disk that fills up takes only the beginning
                written += os.write(descriptor, part[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a reader sees all of it or the old file, never a part."""
    with replacing(path) as temporary:
        write_durably(temporary, content)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; the file that the block writes there replaces `path`.

    If the block fails, `path` is unchanged and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents; return once their names are on disk."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Return once the names in `folder` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:  # some network file systems cannot do this, and need not
            raise
    finally:
        os.close(descriptor)
