"""prepare.py as a program: what it says, and where it runs."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pipeline.dataset.index import MANIFEST, read_manifest
from tests.support.preparing import ROOT, make_source, python


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return python(ROOT / "data/prepare.py", *arguments)


def test_the_program_says_what_it_made(source: Path, tmp_path: Path) -> None:
    done = program("imagefolder", source, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["fingerprint"] in done.stdout
    assert f"data.dir={tmp_path / 'out'}" in done.stdout


def test_the_program_refuses_without_a_traceback(tmp_path: Path) -> None:
    done = program("imagefolder", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == (
        f"prepare.py: {tmp_path / 'none'} does not exist; give the folder that holds the images\n"
    )


def test_the_program_needs_no_installed_project(source: Path, tmp_path: Path) -> None:
    """Without `site`, packages are found but no project that is installed as editable."""
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
    assert read_manifest(tmp_path / "out").samples == {"train": 4, "val": 2}
