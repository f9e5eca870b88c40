"""Libraries that the core works without, and one message where such a library is missing."""

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
"""The modules that each extra of pyproject.toml installs for this project's own imports."""


class MissingExtra(ValueError):  # noqa: N818 - it says what is missing
    """A library that this work needs is not installed."""


def import_extra(module: str, *, needed_by: str) -> Any:
    """Return a module of an extra; raise `MissingExtra` with the remedy if its import fails."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{needed_by} needs {module}, which cannot be imported ({error});"
            f" install it: {_remedy([module])}"
        ) from error


def expect_installed(*modules: str, needed_by: str) -> None:
    """Raise `MissingExtra` with the remedy unless all `modules` are installed; import none."""
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtra(
            f"{needed_by} needs {', '.join(missing)}, which {verb} not installed;"
            f" run make, or: {_remedy(missing)}"
        )


def exit_unless_installed(*modules: str, needed_by: str) -> None:
    """Print one message and exit with code 2 unless all `modules` are installed.

    For the start of a program, before its own imports.
    """
    try:
        expect_installed(*modules, needed_by=needed_by)
    except MissingExtra as error:
        print(error, file=sys.stderr)
        raise SystemExit(USER_MISTAKE) from None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # the package that it is in is missing
        return False


def _remedy(missing: list[str]) -> str:
    """The command that installs the fewest extras."""
    left, chosen = set(missing), list[str]()
    while left:
        best = max(EXTRAS, key=lambda extra: len(EXTRAS[extra] & left))
        assert EXTRAS[best] & left, f"no extra has {left}"
        chosen.append(best)
        left -= EXTRAS[best]
    return f"pip install 'imagenet-pipeline[{','.join(chosen)}]'"
