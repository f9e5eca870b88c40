"""Tar archives of plain files, unpacked without trusting them.

Only plain files and folders are accepted, which is stricter than the filters of Python's tarfile.
"""

import shutil
import tarfile
from pathlib import Path, PurePosixPath


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive, compressed or not, into `folder`, without owners, modes and times.

    Raises `ValueError` if the archive is damaged, or if a member is neither a plain file nor a
    folder or has a name that leads out of `folder`; members before it are already unpacked.
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
            raise  # not an archive error: perhaps a full disk
        reason = str(error).partition(":\n")[0]  # a line for each compression follows
        raise ValueError(f"{archive} cannot be unpacked ({reason}); fetch it again") from error


def _mistrusted(member: tarfile.TarInfo) -> str:
    """Return what is wrong with a member, and the remedy; empty if nothing is."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        return "leads out of the folder of the archive; fetch it from a source that you trust"
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
