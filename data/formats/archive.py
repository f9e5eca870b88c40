"""Tar archives of plain files, unpacked without trusting them.

Python's own filter for this came with 3.11.4; here less is let in: plain files and folders.
"""

import shutil
import tarfile
from pathlib import Path, PurePosixPath


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive, compressed or not, into `folder`; owners, rights and times are dropped.

    Raise `ValueError` for a damaged archive, and for a member that is neither a plain file nor a
    folder or whose name leads out of `folder`; members before it are unpacked by then.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                reason = _mistrusted(member)
                if reason:
                    raise ValueError(f"{archive} cannot be unpacked: {member.name!r} {reason}")
                _write(tar, member, folder / member.name)
    except ValueError:
        raise
    except Exception as error:  # a damaged archive may break its reader in any way
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no fault of the archive's: a full disk, say
        reason = str(error).partition(":\n")[0]  # then comes a line for each compression tried
        raise ValueError(f"{archive} cannot be unpacked ({reason}); fetch it again") from error


def _mistrusted(member: tarfile.TarInfo) -> str:
    """Say what is wrong with a member, and what to do about it; empty if nothing is."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        return "leads out of the archive's folder; fetch the archive from a source that you trust"
    if member.isdir() or (member.isreg() and path.parts):
        return ""
    return "is neither a plain file nor a folder; pack it again with tar -h --hard-dereference"


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None, "a plain file has content"
    with content, path.open("wb") as stream:
        shutil.copyfileobj(content, stream)
