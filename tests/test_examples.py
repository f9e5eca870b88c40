"""The examples in docs/architecture.md: each is shown as its patch, and works in a patched copy.

To change one of them, in a clean checkout:

    git apply docs/examples/NAME.patch     # or `git apply -C0`, if the code around it has changed
    ...                                    # edit
    git add --intent-to-add .
    git diff -U1 | grep -vE '^(diff|index|new file)' > docs/examples/NAME.patch

Then undo the changes outside docs/examples, and copy the patch into the document.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layers import lint

ROOT = Path(__file__).parents[1]
EXAMPLES = ("model", "optimiser", "augmentation", "source", "protocol")
"""In the order of the document."""
COPIED = ("pipeline", "launch", "data", "configs", ".importlinter", "pyproject.toml")
PROGRAM = ROOT / "tests" / "support" / "examples.py"


def patch_of(example: str) -> Path:
    return ROOT / "docs" / "examples" / f"{example}.patch"


def execute(folder: Path, *command: object) -> None:
    """Run a command that must succeed in a copy, with the packages of the copy."""
    variables = {
        "PYTHONPATH": str(folder),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),  # otherwise git ignores files of a checkout
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with all examples; each of them also applies alone."""
    folder = tmp_path_factory.mktemp("examples") / "tree"
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    for example in EXAMPLES:
        execute(folder, "git", "apply", "--check", patch_of(example))
    for example in EXAMPLES:
        execute(folder, "git", "apply", patch_of(example))
    return folder


def test_the_document_shows_each_patch_as_it_is() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text()
    shown = re.findall(r"^```diff\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert shown == [patch_of(example).read_text() for example in EXAMPLES]
    files = {file.name for file in (ROOT / "docs" / "examples").iterdir()}
    assert files == {patch_of(example).name for example in EXAMPLES}


@pytest.mark.process
def test_the_examples_keep_style_and_import_layers(patched: Path) -> None:
    patches = "".join(patch_of(example).read_text() for example in EXAMPLES)
    files = re.findall(r"^\+\+\+ b/(.*\.py)$", patches, re.MULTILINE)
    execute(patched, sys.executable, "-m", "ruff", "check", *files)
    execute(patched, sys.executable, "-m", "ruff", "format", "--check", *files)
    code, output = lint(patched)
    assert code == 0, output


@pytest.mark.process
def test_the_examples_do_what_they_promise(patched: Path, tmp_path: Path) -> None:
    execute(patched, sys.executable, "-P", PROGRAM, tmp_path)
