"""Which addresses MLflow accepts for its store."""

from importlib.metadata import entry_points
from urllib.parse import urlsplit

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
CLOUDS = ("databricks", "databricks-uc", "uc")
SQLITE = "sqlite:///"
PLUGINS = "mlflow.tracking_store"
"""Entry points of packages that give MLflow more stores."""
USABLE = f"write http://HOST:PORT, or a database such as {SQLITE}/FOLDER/mlflow.db"


def usable_store(uri: str) -> str:
    """Return the address of an MLflow store.

    Raises `ValueError` if MLflow would refuse it for good; the message continues after the address.
    """
    scheme = uri if uri in CLOUDS else uri.partition(":")[0].lower() if ":" in uri else ""
    match scheme.partition("+")[0]:
        case "" | "file":
            raise ValueError(f"is a folder, and MLflow no longer keeps runs in folders; {USABLE}")
        case kind if kind in SERVERS:
            if not _is_address(uri):
                raise ValueError("is not the address of a server; write http://HOST:PORT")
        case "sqlite":
            if not uri.startswith(SQLITE) or _file(uri) in ("", ":memory:"):
                raise ValueError(f"does not name a file; write {SQLITE}/FOLDER/mlflow.db")
        case kind if kind in (*DATABASES, *CLOUDS) or scheme in _plugins():
            pass
        case _:
            raise ValueError(f"starts with {scheme}:, and MLflow has no such store; {USABLE}")
    return uri


def _file(uri: str) -> str:
    return uri.removeprefix(SQLITE).partition("?")[0]


def _is_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and parts.port != 0 and not any(map(str.isspace, uri))
    except ValueError:  # a port that is not a number, or half of an IPv6 address
        return False


def _plugins() -> set[str]:
    return {each.name for each in entry_points(group=PLUGINS)}
