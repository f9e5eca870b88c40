"""prepare.py as a program: its output, and where it runs."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pipeline.dataset.index import read_manifest
from tests.support.preparing import ROOT, make_source, python, run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def test_mistakes_have_one_message_and_no_traceback(tmp_path: Path) -> None:
    program = ROOT / "data/prepare.py"
    done = python(program, "imagefolder", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == (
        f"prepare.py: {tmp_path / 'none'} does not exist; give the folder with the images\n"
    )


def test_a_missing_library_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert run("digits", "--out", tmp_path) == 2
    said = "digits needs sklearn.datasets, which is not installed; run: pip install '.[prepare]'"
    assert capsys.readouterr().err == f"prepare.py: {said}\n"


def test_the_program_reports_its_result_without_an_installed_project(
    source: Path, tmp_path: Path
) -> None:
    """Without `site`, packages are found but not a project that is installed as editable."""
    packages = sysconfig.get_path("purelib")
    prepare = [ROOT / "data/prepare.py", "imagefolder", source, "--out", "out", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-S", *prepare],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": packages},
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out")
    assert manifest.samples == {"train": 4, "val": 2}
    assert manifest.fingerprint in done.stdout
    assert "data.dir=out" in done.stdout
