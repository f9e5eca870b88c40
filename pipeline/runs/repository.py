"""The git repository of the running code. What git does not report is an error, never a guess."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT_VARIABLES = {
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_EXEC_PATH",
}
"""The others, such as GIT_DIR and GIT_INDEX_FILE, can lead git to another repository."""
ANSWER_SECONDS = 10.0
UNCOMPARED = ("h", "s", "S")
"""How `git ls-files -v` marks files that git was told to take for unchanged."""


class RepositoryError(Exception):
    """Git does not answer, refuses to, or does not know the code."""


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository that tracks the code in `folder`; its methods raise `RepositoryError`."""

    folder: Path
    commit: str

    @classmethod
    def around(cls, folder: Path, file: str) -> "Repository":
        """Return the repository that tracks `file` in `folder`, at its present commit."""
        commit = git(folder, "rev-parse", "--verify", "HEAD")
        if not git(folder, "ls-files", "--", file):  # a copy inside another repository
            raise RepositoryError(f"the git repository around {folder} does not track this code")
        return cls(folder, commit.decode().strip())

    def branch(self) -> str:
        """Return the name of the branch; "HEAD" if there is none."""
        return git(self.folder, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()

    def is_dirty(self) -> bool:
        """Whether the folder differs from the commit, also by files that git does not track."""
        options = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
        if git(self.folder, "status", *options, "--", ".") or self.ignored_modules():
            return True
        marked = git(self.folder, "ls-files", "-v", "--", ".").decode(errors="replace")
        if any(line.startswith(UNCOMPARED) for line in marked.splitlines()):
            raise RepositoryError("some files are marked assume-unchanged or skip-worktree")
        return False

    def untracked(self) -> list[str]:
        """Return the files that git neither tracks nor ignores, as paths from the folder."""
        return self._others("--exclude-standard", "--", ".")

    def ignored_modules(self) -> list[str]:
        """Return the modules of the code that git ignores: Python imports them all the same."""
        modules = ("pipeline/*.py", "launch/*.py")
        return self._others("--ignored", "--exclude-standard", "--", *modules)

    def _others(self, *options: str) -> list[str]:
        listed = git(self.folder, "ls-files", "-z", "--others", *options)
        return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def git(
    folder: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    seconds: float = ANSWER_SECONDS,
) -> bytes:
    """Return what git prints in `folder`; raise `RepositoryError` if it fails or takes longer."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in KEPT_VARIABLES
    }
    # Without optional locks: several jobs may ask at once, and the repository may be read-only.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    try:
        answer = subprocess.run(
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            env=inherited | {"LC_ALL": "C"} | dict(variables or {}),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"git {arguments[0]} took longer than {seconds:g} seconds"
        raise RepositoryError(why) from None
    except OSError as error:
        raise RepositoryError(f"git cannot be started: {error.strerror}") from None
    if answer.returncode != 0:
        said = " ".join(answer.stderr.decode(errors="replace").split())
        raise RepositoryError(said or f"git {arguments[0]} failed")
    return answer.stdout
