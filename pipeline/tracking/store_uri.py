"""The URI of the MLflow store of a run, and how it may be shown."""

import os
import re
from pathlib import Path

ARTIFACTS_DIR = "mlartifacts"
"""Folder of the artifacts, beside the file of an sqlite store."""
_SQLITE = "sqlite:///"


def default_uri(runs_dir: Path, configured: str | None = None) -> str:
    """Return `configured`, else $MLFLOW_TRACKING_URI, else mlflow.db beside `runs_dir`.

    Paths of sqlite files are absolute, so that they do not depend on a process's working directory.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return f"{_SQLITE}{runs_dir.resolve().parent / 'mlflow.db'}"
    file = sqlite_file(uri)
    return f"{_SQLITE}{file.resolve()}" if file else uri


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an sqlite store; None for any other store."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(_SQLITE) and path else None


def without_password(text: str) -> str:
    """Return `text` with the passwords of all URIs in it replaced by ***."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)
