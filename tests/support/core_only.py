"""Child processes with the core dependencies alone: no extra is installed there."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.system.extras import EXTRAS

ROOT = Path(__file__).parents[2]
REFUSED = sorted(frozenset[str]().union(*EXTRAS.values()))
HOOK = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if any(name == refused or name.startswith(refused + ".") for refused in {REFUSED!r}):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
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
