"""Every import is declared, and a missing extra is one message with its remedy."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pipeline.system.extras import (
    EXTRAS,
    MissingExtra,
    exit_unless_installed,
    expect_installed,
    import_extra,
)
from pipeline.tracking.jsonl import METRICS, read_events
from pipeline.tracking.tracker import open_tracker
from tests.support.core_only import ROOT, run_core_only, run_program_core_only
from tests.support.images import make_dataset
from tests.support.loading import dali
from tests.support.run_folders import config

OURS = ("pipeline", "launch", "data")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE_PROGRAM = ROOT / "launch/checkpoint.py"
PROGRAMS = sorted(
    path
    for folder in ("launch", "data")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text() and path != CORE_PROGRAM
)


def modules_of(requirements: list[str]) -> set[str]:
    """The top-level modules that these distributions install here."""
    names = {requirement.partition(">")[0].lower() for requirement in requirements}
    found = packages_distributions().items()
    return {module for module, owners in found if names & {owner.lower() for owner in owners}}


def third_party_imports() -> Iterator[tuple[str, Path]]:
    for path in (file for folder in OURS for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names}:
                if name not in {*sys.stdlib_module_names, *OURS}:
                    yield name, path


PEERS = ("timm", "turboloader")
"""Loaders that a benchmark compares ours with, if they are installed."""


@pytest.mark.slow
def test_every_import_is_of_a_declared_dependency() -> None:
    core = modules_of(PROJECT["dependencies"])
    extras = {module.partition(".")[0] for modules in EXTRAS.values() for module in modules}
    imports = dict(third_party_imports())
    assert {"torch", "pyarrow", "submitit"} <= imports.keys()
    rest = {"pydantic_core", "_typeshed", *PEERS}  # pydantic's own half, and types alone
    assert imports.keys() - core - extras == rest, imports


@pytest.mark.slow
def test_the_table_has_the_modules_of_pyproject() -> None:
    declared = PROJECT["optional-dependencies"]
    assert EXTRAS.keys() == declared.keys() - {"all", "dev"}
    for extra, modules in EXTRAS.items():
        installed = modules_of(declared[extra])
        assert {module.partition(".")[0] for module in modules} <= installed, extra
        assert len(modules) == len(declared[extra]), extra
    assert declared["all"] == [f"imagenet-pipeline[{','.join(EXTRAS)}]"]


@pytest.mark.process
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_program_without_its_extra_says_what_to_install(program: Path, tmp_path: Path) -> None:
    done = run_program_core_only(program, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "pip install 'imagenet-pipeline[" in done.stderr


@pytest.mark.process
def test_training_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    start = "import runpy; runpy.run_module('pipeline.train', run_name='__main__')"
    done = run_core_only(start, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "training needs pyarrow, xxhash, which are not installed;"
        " run make, or: pip install 'imagenet-pipeline[train]'\n"
    )


def test_loading_images_without_dali_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_dataset(tmp_path, train=8, val=2)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MissingExtra, match=r"nvidia.dali.* not installed.*\[train\]'$"):
        dali(folder)


def test_training_without_mlflow_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with open_tracker(config(tmp_path), tmp_path, is_main=True) as tracker:
        assert tracker.mlflow_run_id(0) is None
    (warning,) = read_events(tmp_path / METRICS)
    assert warning["event"] == "warned"
    assert "pip install 'imagenet-pipeline[tracking]'" in warning["message"]


def test_the_fewest_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for modules, extras in (
        (("sklearn", "pyarrow"), "prepare"),
        (("psutil", "submitit"), "cluster"),
        (("nvidia.dali", "pyarrow"), "train"),
        (("mlflow", "pyarrow", "psutil", "xxhash"), "train,tracking"),
    ):
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match=rf"'imagenet-pipeline\[{extras}\]'$"):
            expect_installed(*modules, needed_by="this")


def test_what_is_installed_is_imported() -> None:
    exit_unless_installed("psutil", "nvidia.dali", needed_by="this")
    assert import_extra("psutil", needed_by="this").__name__ == "psutil"


def test_a_library_that_fails_to_import_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"this needs mlflow, .*halted; None.*\[tracking\]'$"):
        import_extra("mlflow", needed_by="this")
