"""The URI of the MLflow store of a run, and how it may be shown."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.config.schema.store import SERVERS, SQLITE, usable_store
from pipeline.system.secrets import hide_secrets

ARTIFACTS_DIR = "mlartifacts"
"""Folder of the artifacts, beside the file of an sqlite store."""
VARIABLE = "MLFLOW_TRACKING_URI"


def default_uri(runs_dir: Path, configured: str | None = None) -> str:
    """Return `configured`, else $MLFLOW_TRACKING_URI, else mlflow.db beside `runs_dir`.

    Paths of sqlite files are absolute, so that they do not depend on a process's working directory.
    """
    uri = configured or os.environ.get(VARIABLE)
    if not uri:
        return f"{SQLITE}{runs_dir.resolve().parent / 'mlflow.db'}"
    file = sqlite_file(uri)
    return f"{SQLITE}{file.resolve()}" if file else uri


def expect_usable(configured: str | None) -> None:
    """Raise `ValueError` if MLflow would refuse the store of `default_uri` for good."""
    uri = configured or os.environ.get(VARIABLE)
    try:
        usable_store(uri or SQLITE + "mlflow.db")
    except ValueError as error:
        place = "" if configured else f"{VARIABLE}="
        raise ValueError(f"{place}{without_password(uri or '')} {error}") from None


def requested_uri(runs_dir: Path, option: str | None) -> str:
    """Return the store that the command-line option --uri names, else `default_uri`.

    Raises `ValueError` if it has a password, or if MLflow would refuse it for good.
    """
    if option and without_password(option) != option:
        raise ValueError(
            f"--uri {without_password(option)} has a password, and all users of this machine can"
            f" see the command line; put the address into {VARIABLE} instead"
        )
    try:
        expect_usable(option)
    except ValueError as error:
        raise ValueError(f"--uri {error}" if option else str(error)) from None
    return default_uri(runs_dir, option)


def is_server(uri: str) -> bool:
    """Whether a store is a server."""
    return uri.partition("://")[0].lower() in SERVERS


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an sqlite store; None for any other store."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(SQLITE) and path else None


def split_credentials(uri: str) -> tuple[str, str, str]:
    """Return the address of a server, and the user and the password in its URI, or ""."""
    parts = urlsplit(uri)
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(user), unquote(password)


def public_uri(uri: str) -> str:
    """Return `uri` as it may be shown: without user, or for a database with *** for passwords."""
    return without_password(split_credentials(uri)[0] if is_server(uri) else uri)


def without_password(text: str) -> str:
    """Return `text` with *** in place of passwords, as in URIs."""
    return hide_secrets(text)
