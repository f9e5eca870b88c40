"""A copy of the code for each submission: later edits do not change a queued job."""

import json
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path

from launch.slurm.submit.changes import describe_changes
from pipeline.runs.provenance import COMMIT, describe_code, describe_problem
from pipeline.runs.repository import Repository, RepositoryError
from pipeline.system.durable import write_whole
from pipeline.system.secrets import hide_secrets

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pipeline", "launch")
"""The packages that a rank imports."""
LOCK = "requirements.lock"
PATCH = "changes.patch"


def copy_code(folder: Path) -> None:
    """Copy the code to `folder`/code, and describe the environment beside it.

    environment.json has the commit, the Python version and the version of every package;
    changes.patch is the difference from the commit, with files that git does not track. What is
    not known, or left out of the patch, is a warning on standard error and a comment in the patch.
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
    patch, notes = _changes()
    comments = "".join(f"# {note}\n" for note in notes)
    write_whole(folder / PATCH, comments.encode(errors="backslashreplace") + patch)
    for warning in filter(None, [describe_problem(code), *(f"{PATCH}: {note}" for note in notes)]):
        print(f"warning: {warning}", file=sys.stderr)


def _changes() -> tuple[bytes, list[str]]:
    try:
        return describe_changes(
            Repository.around(ROOT, str(Path(__file__).resolve().relative_to(ROOT)))
        )
    except (RepositoryError, OSError) as error:
        return b"", [f"the changes are unknown: {hide_secrets(str(error))}"]
