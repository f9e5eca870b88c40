"""Child processes that have the core dependencies alone: the libraries of all extras are missing."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.system.extras import EXTRAS

ROOT = Path(__file__).parents[2]
REFUSED = sorted(frozenset[str]().union(*EXTRAS.values()))
HOOK = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == refused or name.startswith(refused + ".") for refused in {REFUSED!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def run_core_only(code: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `code`, which can import this checkout."""
    return subprocess.run(
        [sys.executable, "-P", "-c", f"{HOOK}\n{code}"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def run_program_core_only(
    program: Path, *arguments: str, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program of this checkout, as `python PROGRAM ARGUMENTS` does."""
    argv = [str(program), *arguments]
    start = f"import runpy; sys.argv = {argv!r}; runpy.run_path({argv[0]!r}, run_name='__main__')"
    return run_core_only(start, cwd=cwd)
