"""Where the numbers of a run come from: code, configuration, data and library versions."""

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.runs.repository import Repository, RepositoryError
from pipeline.system.secrets import hide_secrets

COMMIT = "commit.json"
LIBRARIES = ("torch", "torchvision", "nvidia-dali-cuda130", "numpy")
UNKNOWN = "unknown"
PROBLEM = "git_problem"
"""The tag that says why another one is unknown."""


def describe_run(config_text: str, fingerprint: str) -> dict[str, str]:
    """Return the tags of a run: git_commit, git_dirty, config_hash, dataset_fingerprint ..."""
    tags = {
        "config_hash": hashlib.sha256(config_text.encode()).hexdigest()[:16],
        "dataset_fingerprint": fingerprint,
        "host": platform.node(),
        "python": platform.python_version(),
    }
    tags |= {library.removesuffix("-cuda130"): _version(library) for library in LIBRARIES}
    return tags | describe_code()


def describe_code() -> dict[str, str]:
    """Return git_commit, git_branch and git_dirty ("true" or "false") of the running code.

    What cannot be found out is "unknown", and git_problem says why. The copy of the code that a
    queued job uses, and an image, have them in the file commit.json.
    """
    root = Path(__file__).resolve().parents[2]
    unknown = dict.fromkeys(("git_commit", "git_branch", "git_dirty"), UNKNOWN)
    try:
        if (root / COMMIT).exists():
            return unknown | json.loads((root / COMMIT).read_bytes())
        repository = Repository.around(root, str(Path(__file__).resolve().relative_to(root)))
        unknown |= {"git_commit": repository.commit, "git_branch": repository.branch()}
        return unknown | {"git_dirty": str(repository.is_dirty()).lower()}
    except (RepositoryError, OSError, ValueError, TypeError) as error:
        return unknown | {PROBLEM: hide_secrets(str(error))}


def describe_problem(tags: dict[str, str]) -> str:
    """Return a warning if git could not describe the code, else ""."""
    if PROBLEM not in tags:
        return ""
    unknown = [name for name in ("git_commit", "git_dirty") if tags.get(name) == UNKNOWN]
    verb = "is" if len(unknown) == 1 else "are"
    return f"{' and '.join(unknown)} {verb} recorded as unknown: {tags[PROBLEM]}"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return UNKNOWN
