"""Only `pipeline` is installed; programs also run beside other packages called `data`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from pipeline.dataset.index import read_manifest
from tests.multiprocess.runs import write_recipe
from tests.support.images import make_dataset
from tests.support.preparing import make_source

ROOT = Path(__file__).parents[1]
CHECKOUT = ("pipeline", "launch", "data", "pyproject.toml", "README.md")

pytestmark = pytest.mark.process

BUILD = "import sys; from setuptools import build_meta; build_meta.{what}(sys.argv[1])"
OURS = ("pipeline", "launch", "data")


def built(what: str, folder: Path) -> ZipFile:
    """The output of `build_wheel` or `build_editable` for a copy of the checkout, offline."""
    copy, out = folder / "checkout", folder / "out"
    for name in CHECKOUT:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    out.mkdir()
    command = [sys.executable, "-c", BUILD.format(what=what), out]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return ZipFile(wheel)


def importable(wheel: ZipFile, folder: Path) -> set[str]:
    """Which of our packages can be imported where `wheel` alone is installed."""
    wheel.extractall(folder / "site")
    code = f"""
import site, sys
from importlib.util import find_spec
site.addsitedir({str(folder / "site")!r})
print(*(name for name in {OURS!r} if find_spec(name)))
"""
    command = [sys.executable, "-S", "-P", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={}, cwd=folder)
    return set(done.stdout.split())


def test_a_wheel_has_pipeline_with_its_types_and_nothing_else(tmp_path: Path) -> None:
    with built("build_wheel", tmp_path) as wheel:
        names = set(wheel.namelist())
        assert importable(wheel, tmp_path) == {"pipeline"}
    files = {name for name in names if ".dist-info/" not in name}
    ours = [path for path in (ROOT / "pipeline").rglob("*") if path.suffix in (".py", ".typed")]
    assert files == {str(path.relative_to(ROOT)) for path in ours}
    assert "pipeline/py.typed" in files


def test_an_editable_install_has_pipeline_alone(tmp_path: Path) -> None:
    with built("build_editable", tmp_path) as wheel:
        assert importable(wheel, tmp_path) == {"pipeline"}


# ---------------------------------------------------------- beside folders of the same names


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Another project, whose packages have the names of ours and fail when imported."""
    for name in OURS:
        package = tmp_path / "project" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('this is the wrong package')\n")
    return tmp_path / "project"


def program(project: Path, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / name, *map(str, arguments)],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_data_is_prepared_beside_another_package_called_data(project: Path, tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source"), tmp_path / "out"
    done = program(project, "data/prepare.py", "imagefolder", source, "--out", out, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert read_manifest(out).samples == {"train": 4, "val": 2}


@pytest.mark.parametrize("options", [["--dry-run"], ["--ranks", "2"], ["--executor", "local"]])
def test_a_network_is_trained_beside_another_package_called_data(
    project: Path, tmp_path: Path, options: list[str]
) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "images", train=32, val=8))
    settings = [f"runs_dir={tmp_path / 'runs'}", "train.steps=2"]
    done = program(project, "launch/submit.py", "--local", *options, recipe, *settings)
    assert done.returncode == 0, done.stderr
    results = list((tmp_path / "runs").glob("*/result.json"))
    assert len(results) == (0 if "--dry-run" in options else 1)


@pytest.mark.parametrize(
    "name",
    [
        *(f"launch/{name}.py" for name in ("status", "checkpoint", "benchmark", "order_quality")),
        *(f"launch/{name}.py" for name in ("cancel", "resume", "watch", "doctor", "dashboard")),
        *(f"data/{name}.py" for name in ("verify", "show", "benchmark")),
    ],
)
def test_each_program_starts_beside_another_package_called_data(project: Path, name: str) -> None:
    done = program(project, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
