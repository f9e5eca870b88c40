"""The commit of the running code, as git reports it: nothing is guessed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
WHO = ("-c", "user.name=me", "-c", "user.email=me@host", "-c", "commit.gpgsign=false")
ASK = """
import json
from pipeline.runs.provenance import describe_code, describe_problem
code = describe_code()
print(json.dumps([code, describe_problem(code)]))
"""
SLOW = '#!/bin/sh\ncase "$*" in *" status "*) exec sleep 60;; esac\nexec {git} "$@"\n'


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *WHO, "-C", str(folder), *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        command, env=clean, check=True, capture_output=True, text=True
    ).stdout.strip()


def copy_code(folder: Path) -> Path:
    """Copy the code, without any repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=ignored)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    return folder


def commit(folder: Path) -> str:
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


def describe(folder: Path, **variables: str) -> tuple[dict[str, str], str]:
    """Return the description of the code in `folder`, and the warning."""
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        check=True,
        capture_output=True,
        text=True,
    )
    code, problem = json.loads(answer.stdout)
    return code, problem


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A clean checkout."""
    folder = copy_code(tmp_path / "code")
    commit(folder)
    return folder


def described(folder: Path, *, dirty: str) -> dict[str, str]:
    branch = git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return {
        "git_commit": git(folder, "rev-parse", "HEAD"),
        "git_branch": branch,
        "git_dirty": dirty,
    }


def test_a_clean_checkout(code: Path) -> None:
    assert describe(code) == (described(code, dirty="false"), "")


def append(code: Path) -> None:
    with (code / "pipeline" / "loop.py").open("a") as file:
        file.write("# changed\n")


def stage(code: Path) -> None:
    append(code)
    git(code, "add", ".")


def add_file(code: Path) -> None:
    (code / "pipeline" / "new.py").touch()


def add_file_that_is_not_shown(code: Path) -> None:
    git(code, "config", "status.showUntrackedFiles", "no")
    add_file(code)


def add_ignored_module(code: Path) -> None:
    (code / ".git" / "info" / "exclude").write_text("new.py\n")
    add_file(code)


@pytest.mark.parametrize(
    "change", [append, stage, add_file, add_file_that_is_not_shown, add_ignored_module]
)
def test_a_changed_checkout_is_dirty(code: Path, change: Callable[[Path], None]) -> None:
    change(code)
    assert describe(code) == (described(code, dirty="true"), "")


def test_variables_that_lead_git_elsewhere_change_nothing(code: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    commit(other)
    append(code)
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git" / "index",
        "GIT_CEILING_DIRECTORIES": code,
        "GIT_OBJECT_DIRECTORY": other,
        "GIT_COMMON_DIR": other / ".git",
    }.items():
        assert describe(code, **{name: str(value)}) == (described(code, dirty="true"), "")
    config = {"COUNT": "1", "KEY_0": "core.worktree", "VALUE_0": str(other)}
    variables = {f"GIT_CONFIG_{name}": value for name, value in config.items()}
    assert describe(code, **variables) == (described(code, dirty="true"), "")


def test_a_work_tree_and_a_submodule_are_described_by_their_own_commit(
    code: Path, tmp_path: Path
) -> None:
    git(code, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    append(tmp_path / "tree")
    git(tmp_path / "tree", "commit", "-q", "-a", "-m", "second")
    assert describe(tmp_path / "tree") == (described(tmp_path / "tree", dirty="false"), "")
    assert describe(tmp_path / "tree")[0]["git_branch"] == "side"
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "file").touch()
    commit(outer)
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(code), "inner")
    assert describe(outer / "inner") == (described(code, dirty="false"), "")


def test_code_inside_the_repository_of_another_project_is_unknown(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "file").touch()
    commit(outer)
    inside = {"snapshot": outer / "snapshot", "installed": outer / "lib" / "site-packages"}
    for folder in inside.values():
        folder.mkdir(parents=True)
        found, problem = describe(copy_code(folder))
        assert found["git_commit"] == found["git_dirty"] == "unknown"
        assert f"the git repository around {folder} does not track this code" in problem


def test_code_without_a_repository_is_unknown(tmp_path: Path) -> None:
    tmp_path.joinpath("code").mkdir()
    found, problem = describe(copy_code(tmp_path / "code"))
    assert found["git_commit"] == found["git_dirty"] == "unknown"
    assert "not a git repository" in problem


def test_without_git_the_commit_is_unknown(code: Path, tmp_path: Path) -> None:
    found, problem = describe(code, PATH=str(tmp_path))
    assert found["git_commit"] == found["git_dirty"] == "unknown"
    assert problem.startswith("git_commit and git_dirty are recorded as unknown: git cannot be")


@pytest.mark.slow
def test_a_slow_status_is_not_clean(code: Path, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "git").write_text(SLOW.format(git=shutil.which("git")))
    (commands / "git").chmod(0o755)
    found, problem = describe(code, PATH=f"{commands}:{os.environ['PATH']}")
    assert found["git_commit"] == git(code, "rev-parse", "HEAD")
    assert found["git_dirty"] == "unknown"
    why = "git status took longer than 10 seconds"
    assert problem == f"git_dirty is recorded as unknown: {why}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_repository_of_somebody_else_is_unknown(code: Path) -> None:
    for path in (code, code / ".git"):
        os.chown(path, 54321, -1)
    found, problem = describe(code)
    assert found["git_commit"] == found["git_dirty"] == "unknown"
    assert "dubious ownership" in problem
    assert "safe.directory" in problem


def test_files_that_git_does_not_compare_are_not_clean(code: Path) -> None:
    append(code)
    for flag in ("assume-unchanged", "skip-worktree"):
        git(code, "update-index", f"--{flag}", "pipeline/loop.py")
        found, problem = describe(code)
        assert found["git_dirty"] == "unknown"
        assert flag in problem
        git(code, "update-index", f"--no-{flag}", "pipeline/loop.py")


def test_a_copy_of_the_code_knows_its_commit(tmp_path: Path) -> None:
    tmp_path.joinpath("code").mkdir()
    code = copy_code(tmp_path / "code")
    (code / "commit.json").write_text('{"git_commit": "abc"}')
    assert describe(code)[0] == {
        "git_commit": "abc",
        "git_branch": "unknown",
        "git_dirty": "unknown",
    }
    (code / "commit.json").write_text("{")
    found, problem = describe(code)
    assert found["git_commit"] == "unknown"
    assert problem
