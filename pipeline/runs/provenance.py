"""Where the numbers of a run come from: code, configuration, data and library versions."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COMMIT = "commit.json"
LIBRARIES = ("torch", "torchvision", "nvidia-dali-cuda130", "numpy")


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
    """Return git_commit, git_branch and git_dirty of the running code; empty without git.

    The copy of the code that a queued job uses has them in its file commit.json.
    """
    root = Path(__file__).resolve().parents[2]
    if (root / COMMIT).exists():
        return json.loads((root / COMMIT).read_bytes())
    # An installed copy may be inside the repository of another project.
    commit = _git("rev-parse", "HEAD") if (root / "pyproject.toml").exists() else ""
    if not commit:
        return {}
    return {
        "git_commit": commit,
        "git_branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "git_dirty": str(bool(_git("status", "--porcelain"))).lower(),
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"


def _git(*command: str) -> str:
    """Return git's output about the running code; empty without git or a repository."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *command],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
