"""A copy of the code for each submission: later edits do not change a queued job."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from pipeline.runs.provenance import COMMIT, describe_code
from pipeline.system.durable import write_whole

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pipeline", "launch")
"""The packages that a rank imports."""
LOCK = "requirements.lock"


def copy_code(folder: Path) -> None:
    """Copy the code to `folder`/code, and describe the environment beside it.

    environment.json has the commit, the Python version and the version of every package;
    changes.patch is the difference from the commit.
    """
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            folder / "code" / package,
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
    if (ROOT / LOCK).exists():
        shutil.copy2(ROOT / LOCK, folder)
    code = describe_code()
    write_whole(folder / "code" / COMMIT, json.dumps(code).encode())
    environment: dict[str, str | dict[str, str]] = {
        **code,
        "python": sys.version,
        "packages": {each.name: each.version for each in distributions()},
    }
    text = json.dumps(environment, indent=2, sort_keys=True) + "\n"
    write_whole(folder / "environment.json", text.encode())
    write_whole(folder / "changes.patch", _changes())


def _changes() -> bytes:
    """Return the difference between the code and its commit; empty without git."""
    command = ["git", "-C", str(ROOT), "diff", "--binary", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""
