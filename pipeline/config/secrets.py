"""Refuses passwords and keys: a configuration is saved with its run, and with each checkpoint."""

from pipeline.config.yaml_document import Data, Document, Fault, Loc
from pipeline.system.secrets import hide_secret

WHY = "which anyone with the run or a checkpoint could read"
REMEDIES = {
    "tracking": "remove it; put the user and password into MLFLOW_TRACKING_USERNAME and"
    " MLFLOW_TRACKING_PASSWORD or ~/.mlflow/credentials, or the whole address of a database into"
    " MLFLOW_TRACKING_URI",
    "env": "remove it, and export the variable where you start the run: the ranks get it, too",
}
REMEDY = "remove it, and read it from a private file or an exported variable"


def secret_faults(document: Document) -> list[Fault]:
    """Return a fault for each password or key in `document`; none of them repeats it."""
    return [
        Fault(
            document.values[loc],
            loc,
            f"has a password or key, {WHY}; {REMEDIES.get(str(loc[0]), REMEDY)}",
        )
        for loc in _secrets(document.data, ())
    ]


def _secrets(value: Data, loc: Loc) -> list[Loc]:
    match value:
        case dict():
            return [found for key, each in value.items() for found in _secrets(each, (*loc, key))]
        case list():
            return [found for i, each in enumerate(value) for found in _secrets(each, (*loc, i))]
        case str() if hide_secret(str(loc[-1]) if loc else "", value) != value:
            return [loc]
        case _:
            return []
