"""Every module belongs to a layer: `.importlinter` finds those that do not."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "launch", "data")

pytestmark = pytest.mark.process


def packages_with_modules() -> set[str]:
    """Return the packages that hold a module besides their `__init__`."""
    modules = [file for top in PACKAGES for file in (ROOT / top).rglob("*.py")]
    return {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in modules
        if file.stem != "__init__" and file.parent.is_dir()
    }


def contracts_with_layers() -> set[str]:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    sections = [contracts[name] for name in contracts.sections()]
    return {each["containers"] for each in sections if each.get("exhaustive") == "true"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for top in PACKAGES:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    """Check the contracts in `folder`; return the exit code and all that was printed."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_package_has_layers_of_its_own() -> None:
    assert packages_with_modules() == contracts_with_layers()


def test_a_module_outside_every_layer_is_found_in_each_package(copy: Path) -> None:
    packages = sorted(packages_with_modules())
    for package in packages:
        (copy / package.replace(".", "/") / "planted.py").write_text("")
    code, output = lint(copy)
    assert code == 1, output
    assert [each for each in packages if f"- {each}.planted" not in output] == []


WRONG_DOORS = [
    ("pipeline/system/durable.py", "import pipeline.loop", "Imports flow down in pipeline"),
    ("pipeline/config/load.py", "import launch.submit", "A training process knows nothing"),
    ("data/formats/tar.py", "import data.formats.devkit", "Imports flow down in data.formats"),
    ("launch/slurm/api/cli.py", "import launch.slurm.submit.request", "No two packages"),
    ("pipeline/tracking/spool.py", "import mlflow", "MLflow is imported in one place"),
    ("data/showing/views.py", "import nvidia.dali", "DALI is imported where it loads images"),
]
"""A file, an import that does not belong there, and the contract that it breaks."""


def test_forbidden_imports_are_found(copy: Path) -> None:
    for file, statement, _ in WRONG_DOORS:
        with (copy / file).open("a") as module:
            module.write(f"\n{statement}\n")
    code, output = lint(copy)
    assert code == 1, output
    broken = [line for line in output.splitlines() if "BROKEN" in line]
    for _, statement, contract in WRONG_DOORS:
        assert any(line.startswith(contract) for line in broken), (statement, output)
