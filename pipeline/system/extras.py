"""Optional libraries, and the message that says how to install a missing one."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipeline.system.exit_codes import USER_MISTAKE

EXTRAS: dict[str, frozenset[str]] = {
    "train": frozenset({"deepspeed", "nvidia.dali", "psutil", "pyarrow", "xxhash"}),
    "cluster": frozenset({"psutil", "submitit"}),
    "tracking": frozenset({"mlflow"}),
    "prepare": frozenset({"pyarrow", "scipy", "sklearn", "xxhash"}),
    "export": frozenset({"onnx", "onnxruntime", "onnxscript"}),
}
"""The modules of each extra in pyproject.toml that this project imports."""


class MissingExtra(ValueError):  # noqa: N818 - it says what is missing
    """An optional library that is needed is not installed."""


def import_extra(module: str, *, needed_by: str) -> Any:
    """Import and return a module of an extra; raise `MissingExtra` if the import fails."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{needed_by} needs {module}, which cannot be imported ({error});"
            f" install it: {_remedy([module])}"
        ) from error


def expect_installed(*modules: str, needed_by: str) -> None:
    """Raise `MissingExtra` if one of `modules` is not installed; imports none of them."""
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtra(
            f"{needed_by} needs {', '.join(missing)}, which {verb} not installed;"
            f" run make, or: {_remedy(missing)}"
        )


def exit_unless_installed(*modules: str, needed_by: str) -> None:
    """Print one message and exit with code 2 if one of `modules` is not installed.

    Programs call this first, before their own imports.
    """
    try:
        expect_installed(*modules, needed_by=needed_by)
    except MissingExtra as error:
        print(error, file=sys.stderr)
        raise SystemExit(USER_MISTAKE) from None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # its package is missing
        return False


def _remedy(missing: list[str]) -> str:
    """Return the command that installs the fewest extras with all these modules."""
    left, chosen = set(missing), list[str]()
    while left:
        best = max(EXTRAS, key=lambda extra: len(EXTRAS[extra] & left))
        assert EXTRAS[best] & left, f"no extra has {left}"
        chosen.append(best)
        left -= EXTRAS[best]
    return f"pip install 'imagenet-pipeline[{','.join(chosen)}]'"
