"""The difference between the code and its commit, as a patch of bounded size without passwords."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.runs.repository import Repository, git
from pipeline.system.secrets import hide_secrets, hide_secrets_in_code

FILE_BYTES = 2**20
PATCH_BYTES = 2**23
NOTES = 20
SECONDS = 60.0
DIFF = (
    *("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=none", "HEAD", "--", "."),
)


def describe_changes(repository: Repository) -> tuple[bytes, list[str]]:
    """Return a patch from the commit to the code, and notes about what it lacks.

    It includes files that git does not track. Raises `RepositoryError` if git fails.
    """
    kept, notes = _choose(repository)
    patch = _diff(repository, kept)
    if len(patch) > PATCH_BYTES:
        notes.append(f"the changes are left out: they take {_megabytes(len(patch))}")
        return b"", notes
    public = b"".join(
        map(_without_secrets, re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE))
    )
    if public != patch:
        notes.append("passwords and keys are replaced by ***")
    return public, notes


def _choose(repository: Repository) -> tuple[list[str], list[str]]:
    """Return the untracked files that go into the patch, and notes about the others."""
    kept, notes, room = list[str](), list[str](), PATCH_BYTES // 2
    names = dict.fromkeys([*repository.ignored_modules(), *repository.untracked()])
    for name in names:
        path = repository.folder / name
        size = path.lstat().st_size
        if trouble := _trouble(path, size, room):
            notes.append(f"{name} is left out: {trouble}")
        else:
            kept.append(name)
            room -= size
    if len(notes) > NOTES:
        more = f"{len(notes) - NOTES:,} more files are left out"
        return kept, [*notes[:NOTES], more]
    return kept, notes


def _trouble(path: Path, size: int, room: int) -> str:
    """Return why an untracked file is left out of the patch, or ""."""
    if path.is_symlink():
        return ""
    if not path.is_file():
        return "it is not a file"
    if size > FILE_BYTES:
        return f"it takes {_megabytes(size)}, more than {_megabytes(FILE_BYTES)}"
    if size > room:
        return f"the files before it take {_megabytes(PATCH_BYTES // 2)}"
    try:
        path.open("rb").close()
    except OSError as error:
        return str(error.strerror)
    return ""


def _diff(repository: Repository, untracked: Iterable[str]) -> bytes:
    """Return the difference, as if `untracked` had been added: in a copy of git's index."""
    folder = repository.folder
    empty = git(folder, "hash-object", "--stdin").decode().strip()
    above = os.fsdecode(git(folder, "rev-parse", "--show-prefix").rstrip(b"\n"))
    entries = "".join(f"{_mode(folder / name)} {empty} 0\t{above}{name}\0" for name in untracked)
    index = folder / git(folder, "rev-parse", "--git-path", "index").decode().strip()
    with tempfile.TemporaryDirectory() as place:
        variables = {"GIT_INDEX_FILE": shutil.copy(index, place)}
        stdin = os.fsencode(entries)
        git(folder, "update-index", "-z", "--index-info", variables=variables, stdin=stdin)
        return git(folder, *DIFF, variables=variables, seconds=SECONDS)


def _mode(path: Path) -> str:
    if path.is_symlink():
        return "120000"
    return "100755" if path.stat().st_mode & 0o100 else "100644"


def _without_secrets(part: bytes) -> bytes:
    """Hide the passwords and keys in the patch of one file."""
    if b"\nGIT binary patch\n" in part:
        return part
    name, text = part.partition(b"\n")[0].rstrip(b'"'), part.decode("latin-1")
    hide = hide_secrets_in_code if name.endswith(b".py") else hide_secrets
    return hide(text).encode("latin-1")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
